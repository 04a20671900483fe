#pragma once

// C interface of the Rust crate in this folder: Hugging Face's `tokenizers`, one instance behind a
// pointer. Every function is safe to call from several threads at once as long as the tokenizer is
// not changed meanwhile (_new, _add_tokens, _split_special_tokens, _free). None unwinds: a panic
// inside comes back as an error. src/lib.rs declares the same structures; change both together.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct PricerTokenizer PricerTokenizer;

// Bytes that the crate owns; {NULL, 0} when empty. Not zero-terminated.
typedef struct PricerBytes {
  char* data;
  size_t size;
} PricerBytes;

// One id of an encoding.
typedef struct PricerToken {
  uint32_t id;
  // Byte range of the text, never trimmed of spaces; tokens that share a character all have its
  // range.
  uint32_t begin;
  uint32_t end;
  // Number of the piece that the pre-tokenizer made, counted from 0; UINT32_MAX for `added`.
  uint32_t word;
  // Put in by the post-processor: no part of the text.
  bool added;
} PricerToken;

typedef struct PricerEncoding {
  PricerToken* tokens;
  size_t size;
} PricerEncoding;

// From the bytes of a tokenizer.json. Truncation and padding that the file asks for are left out.
// NULL and `error` where it cannot be read.
PricerTokenizer* pricer_tokenizer_new(const char* json, size_t json_size, PricerBytes* error);
void pricer_tokenizer_free(PricerTokenizer* tokenizer);

// Adds tokens given as a JSON array of {content, single_word, lstrip, rstrip, normalized, special}.
// One that the vocabulary has keeps its id, others get the next free ones. Those that are added
// tokens already are left as they are where `keep_existing` says so; otherwise the new properties
// replace theirs.
bool pricer_tokenizer_add_tokens(PricerTokenizer* tokenizer, const char* json, size_t json_size,
                                 bool keep_existing, PricerBytes* error);
// Special tokens spelled out in a text are from now on ordinary text.
void pricer_tokenizer_split_special_tokens(PricerTokenizer* tokenizer);

// `text` of less than 4 GiB. Without `with_offsets`, which is faster, begin and end are 0.
bool pricer_tokenizer_encode(const PricerTokenizer* tokenizer, const char* text, size_t text_size,
                             bool add_special_tokens, bool with_offsets, PricerEncoding* encoding,
                             PricerBytes* error);
bool pricer_tokenizer_decode(const PricerTokenizer* tokenizer, const uint32_t* ids, size_t id_count,
                             bool skip_special_tokens, PricerBytes* text, PricerBytes* error);
// Tokens, added ones included.
size_t pricer_tokenizer_vocabulary_size(const PricerTokenizer* tokenizer);
// False where no token is spelled so.
bool pricer_tokenizer_token_id(const PricerTokenizer* tokenizer, const char* token,
                               size_t token_size, uint32_t* id);

void pricer_bytes_free(PricerBytes* bytes);
void pricer_encoding_free(PricerEncoding* encoding);

#ifdef __cplusplus
}
#endif
