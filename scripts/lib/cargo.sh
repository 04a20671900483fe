# Sourced: which cargo builds the tokenizers crate.

minimum_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/model/tokenizer_ffi/Cargo.toml"; }

# Prints the path of a cargo that is new enough for the crate, or fails.
find_cargo() {
  local candidate version minimum
  minimum=$(minimum_rust)
  for candidate in "$(command -v cargo || true)" "$HOME/.cargo/bin/cargo" /usr/bin/cargo; do
    [[ -x $candidate ]] || continue
    version=$("$candidate" --version 2>/dev/null | cut -d' ' -f2) || continue
    if [[ $(printf '%s\n' "$minimum" "$version" | sort -V | head -n 1) == "$minimum" ]]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}
