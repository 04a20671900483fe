#include "model/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr absl::string_view kMetadataKey = "__metadata__";
constexpr size_t kMaxRank = 64;

std::optional<Dtype> DtypeFromName(absl::string_view name) {
  for (const Dtype dtype : {Dtype::kF64, Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kI64,
                            Dtype::kI32, Dtype::kI16, Dtype::kI8, Dtype::kU8, Dtype::kBool}) {
    if (DtypeName(dtype) == name) return dtype;
  }
  return std::nullopt;
}

// The grammar of a header is three levels deep: object of objects of strings and lists of integers.
// Every event that does not fit ends the parse with `problem()`.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  SafetensorsHeader TakeHeader() { return std::move(header_); }
  const std::string& problem() const { return problem_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("true or false"); }
  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the negative number ", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", Quoted(text)));
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (list_ == nullptr) return Unexpected(absl::StrCat("the number ", value));
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(absl::StrCat("'", field_, "' overflows with ", value));
    }
    if (list_->size() == kMaxRank) {
      return Fail(absl::StrCat("'", field_, "' has more than ", kMaxRank, " numbers"));
    }
    list_->push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (list_ != nullptr || depth_ != 2)
      return Unexpected(absl::StrCat("the string ", Quoted(value)));
    if (in_metadata_) {
      header_.metadata[field_] = value;
      return true;
    }
    if (field_ != "dtype") return Unexpected(absl::StrCat("the string ", Quoted(value)));
    const std::optional<Dtype> dtype = DtypeFromName(value);
    if (!dtype) return Fail(absl::StrCat("unknown dtype ", Quoted(value)));
    entry_.dtype = *dtype;
    return true;
  }

  bool start_object(size_t) override {
    if (depth_ >= 2 || list_ != nullptr) return Unexpected("an object");
    ++depth_;
    fields_.clear();
    if (depth_ == 2 && !in_metadata_) {
      entry_ = SafetensorsEntry();
      entry_.name = name_;
    }
    return true;
  }

  bool start_array(size_t) override {
    const bool wanted = depth_ == 2 && !in_metadata_ && list_ == nullptr && field_ != "dtype";
    if (!wanted) return Unexpected("a list");
    list_ = field_ == "shape" ? &entry_.shape : &offsets_;
    list_->clear();
    return true;
  }

  bool end_array() override {
    if (list_ == &offsets_ && offsets_.size() != 2) {
      return Fail(absl::StrCat("expected 2 data_offsets, got ", offsets_.size()));
    }
    list_ = nullptr;
    return true;
  }

  bool end_object() override {
    --depth_;
    if (depth_ != 1 || in_metadata_) return true;
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      if (fields_.count(field) == 0) return Fail(absl::StrCat("no field '", field, "'"));
    }
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    header_.entries.push_back(std::move(entry_));
    return true;
  }

  bool key(string_t& key) override { return depth_ == 1 ? TopKey(key) : FieldKey(key); }

  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    problem_ =
        absl::StrCat("header is not valid JSON at byte ", position, ": ", Quoted(error.what()));
    return false;
  }

 private:
  bool TopKey(const std::string& key) {
    name_ = key;
    in_metadata_ = key == kMetadataKey;
    if (names_.insert(key).second) return true;
    return Fail("comes twice");
  }

  bool FieldKey(const std::string& key) {
    field_ = key;
    if (!fields_.insert(key).second)
      return Fail(absl::StrCat("field ", Quoted(key), " comes twice"));
    const bool known = key == "dtype" || key == "shape" || key == "data_offsets";
    if (in_metadata_ || known) return true;
    return Fail(absl::StrCat("unknown field ", Quoted(key)));
  }

  bool Unexpected(absl::string_view what) {
    if (depth_ == 0) return Fail(absl::StrCat("header is not an object but ", what));
    if (depth_ == 1) return Fail(absl::StrCat("expected an object, got ", what));
    return Fail(absl::StrCat("field ", Quoted(field_), ": unexpected ", what));
  }

  bool Fail(absl::string_view problem) {
    if (depth_ == 0) {
      problem_ = std::string(problem);
    } else if (in_metadata_) {
      problem_ = absl::StrCat(kMetadataKey, ": ", problem);
    } else {
      problem_ = absl::StrCat("tensor ", Quoted(name_), ": ", problem);
    }
    return false;
  }

  SafetensorsHeader header_;
  std::string problem_;
  int depth_ = 0;             // objects that are open
  std::string name_;          // the key at level 1
  bool in_metadata_ = false;  // that key is __metadata__
  std::string field_;         // the key at level 2
  std::set<std::string> names_;
  std::set<std::string> fields_;
  SafetensorsEntry entry_;
  std::vector<int64_t> offsets_;
  std::vector<int64_t>* list_ = nullptr;  // the list that is open
};

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         absl::string_view source) {
  HeaderReader reader;
  if (!Json::sax_parse(json.begin(), json.end(), &reader)) {
    return absl::DataLossError(absl::StrCat(source, ": ", reader.problem()));
  }
  return reader.TakeHeader();
}

}  // namespace pricer
