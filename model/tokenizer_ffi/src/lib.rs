//! C interface of the `tokenizers` crate; the contract stands in tokenizer_ffi.h.

use std::os::raw::c_char;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, Tokenizer};

#[repr(C)]
pub struct PricerBytes {
    data: *mut c_char,
    size: usize,
}

#[repr(C)]
pub struct PricerToken {
    id: u32,
    begin: u32,
    end: u32,
    word: u32,
    added: bool,
}

#[repr(C)]
pub struct PricerEncoding {
    tokens: *mut PricerToken,
    size: usize,
}

/// Memory for C: a boxed slice taken apart. Empty ones are null and own nothing.
fn into_raw<T>(values: Vec<T>) -> (*mut T, usize) {
    if values.is_empty() {
        return (std::ptr::null_mut(), 0);
    }
    let size = values.len();
    (Box::into_raw(values.into_boxed_slice()) as *mut T, size)
}

unsafe fn drop_raw<T>(data: *mut T, size: usize) {
    if !data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(
            data, size,
        )));
    }
}

unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

unsafe fn set_bytes(out: *mut PricerBytes, bytes: Vec<u8>) {
    let (data, size) = into_raw(bytes);
    *out = PricerBytes {
        data: data as *mut c_char,
        size,
    };
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs `body`; an error or a panic becomes `error` and None.
unsafe fn guarded<T>(
    error: *mut PricerBytes,
    body: impl FnOnce() -> Result<T, Failure>,
) -> Option<T> {
    static QUIET: Once = Once::new();
    // The caller gets the message; it need not be on standard error as well.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(failure)) => failure.to_string(),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_else(|| "the tokenizers crate panicked".to_string()),
    };
    set_bytes(error, message.into_bytes());
    None
}

/// Offsets as they are: trimming would hide the spaces that a token covers. Ids do not change.
fn keep_offsets_whole(processor: &mut PostProcessorWrapper) {
    match processor {
        PostProcessorWrapper::ByteLevel(byte_level) => byte_level.trim_offsets = false,
        PostProcessorWrapper::Roberta(roberta) => roberta.trim_offsets = false,
        PostProcessorWrapper::Sequence(sequence) => {
            sequence.as_mut().iter_mut().for_each(keep_offsets_whole)
        }
        _ => {}
    }
}

fn parse(json: &[u8]) -> Result<Tokenizer, Failure> {
    let mut tokenizer = Tokenizer::from_bytes(json)?;
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    if let Some(mut processor) = tokenizer.get_post_processor().cloned() {
        keep_offsets_whole(&mut processor);
        tokenizer.with_post_processor(Some(processor));
    }
    Ok(tokenizer)
}

fn encode(
    tokenizer: &Tokenizer,
    text: &[u8],
    add_special_tokens: bool,
    with_offsets: bool,
) -> Result<Vec<PricerToken>, Failure> {
    let text = std::str::from_utf8(text)?;
    u32::try_from(text.len())?;
    let encoding = if with_offsets {
        tokenizer.encode(text, add_special_tokens)?
    } else {
        tokenizer.encode_fast(text, add_special_tokens)?
    };
    let offsets = encoding.get_offsets();
    let words = encoding.get_word_ids();
    let added = encoding.get_special_tokens_mask();
    let token = |(i, &id): (usize, &u32)| {
        let (begin, end) = if with_offsets { offsets[i] } else { (0, 0) };
        let word = words[i].unwrap_or(u32::MAX);
        PricerToken {
            id,
            begin: begin as u32,
            end: end as u32,
            word,
            added: added[i] != 0,
        }
    };
    Ok(encoding.get_ids().iter().enumerate().map(token).collect())
}

/// # Safety
/// As tokenizer_ffi.h says; this holds for every function below.
#[no_mangle]
pub unsafe extern "C" fn pricer_tokenizer_new(
    json: *const c_char,
    json_size: usize,
    error: *mut PricerBytes,
) -> *mut Tokenizer {
    guarded(error, || parse(slice(json as *const u8, json_size)))
        .map_or(std::ptr::null_mut(), |tokenizer| {
            Box::into_raw(Box::new(tokenizer))
        })
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(tokenizer))));
    }
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_tokenizer_add_tokens(
    tokenizer: *mut Tokenizer,
    json: *const c_char,
    json_size: usize,
    keep_existing: bool,
    error: *mut PricerBytes,
) -> bool {
    guarded(error, || {
        let mut tokens: Vec<AddedToken> =
            serde_json::from_slice(slice(json as *const u8, json_size))?;
        if keep_existing {
            let added = (*tokenizer).get_added_vocabulary().get_vocab();
            tokens.retain(|token| !added.contains_key(&token.content));
        }
        Ok((*tokenizer).add_tokens(tokens)?)
    })
    .is_some()
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_tokenizer_split_special_tokens(tokenizer: *mut Tokenizer) {
    (*tokenizer).set_encode_special_tokens(true);
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: *const c_char,
    text_size: usize,
    add_special_tokens: bool,
    with_offsets: bool,
    encoding: *mut PricerEncoding,
    error: *mut PricerBytes,
) -> bool {
    let text = slice(text as *const u8, text_size);
    match guarded(error, || {
        encode(&*tokenizer, text, add_special_tokens, with_offsets)
    }) {
        Some(tokens) => {
            let (tokens, size) = into_raw(tokens);
            *encoding = PricerEncoding { tokens, size };
            true
        }
        None => false,
    }
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_tokenizer_decode(
    tokenizer: *const Tokenizer,
    ids: *const u32,
    id_count: usize,
    skip_special_tokens: bool,
    text: *mut PricerBytes,
    error: *mut PricerBytes,
) -> bool {
    let ids = slice(ids, id_count);
    match guarded(error, || (*tokenizer).decode(ids, skip_special_tokens)) {
        Some(decoded) => {
            set_bytes(text, decoded.into_bytes());
            true
        }
        None => false,
    }
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_tokenizer_vocabulary_size(tokenizer: *const Tokenizer) -> usize {
    catch_unwind(AssertUnwindSafe(|| (*tokenizer).get_vocab_size(true))).unwrap_or(0)
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_tokenizer_token_id(
    tokenizer: *const Tokenizer,
    token: *const c_char,
    token_size: usize,
    id: *mut u32,
) -> bool {
    let found = catch_unwind(AssertUnwindSafe(|| {
        let token = std::str::from_utf8(slice(token as *const u8, token_size)).ok()?;
        (*tokenizer).token_to_id(token)
    }));
    match found {
        Ok(Some(value)) => {
            *id = value;
            true
        }
        _ => false,
    }
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_bytes_free(bytes: *mut PricerBytes) {
    drop_raw((*bytes).data, (*bytes).size);
    *bytes = PricerBytes {
        data: std::ptr::null_mut(),
        size: 0,
    };
}

/// # Safety
#[no_mangle]
pub unsafe extern "C" fn pricer_encoding_free(encoding: *mut PricerEncoding) {
    drop_raw((*encoding).tokens, (*encoding).size);
    *encoding = PricerEncoding {
        tokens: std::ptr::null_mut(),
        size: 0,
    };
}
