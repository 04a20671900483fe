#include "catalog/parquet_source.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/schema.h>
#include <parquet/exception.h>
#include <parquet/properties.h>

#include <array>
#include <charconv>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "catalog/arrow_objects.h"
#include "catalog/object_store.h"
#include "catalog/quote.h"

namespace pricer {
namespace {

using Kind = FieldValue::Kind;

constexpr int64_t kBatchRows = 1024;
constexpr int64_t kReadBytes = int64_t{1} << 18;  // at a time, of each column
constexpr absl::string_view kMagic = "PAR1";

// Runs what reads from the file. Arrow's layer returns statuses, but Parquet's below it throws.
template <typename Function>
absl::Status ReadGuarded(const std::string& path, Function&& read) {
  arrow::Status status;
  try {
    status = read();
  } catch (const std::exception& e) {
    status = arrow::Status::Invalid(e.what());
  }
  if (status.ok()) return absl::OkStatus();
  const std::string message = absl::StrCat(path, ": broken Parquet data: ", status.message());
  return status.IsOutOfMemory() ? absl::ResourceExhaustedError(message)
                                : absl::DataLossError(message);
}

bool IsReadable(const arrow::DataType& type) {
  switch (type.id()) {
    case arrow::Type::STRING:
    case arrow::Type::LARGE_STRING:
    case arrow::Type::STRING_VIEW:
    case arrow::Type::BINARY:
    case arrow::Type::LARGE_BINARY:
    case arrow::Type::BINARY_VIEW:
    case arrow::Type::BOOL:
    case arrow::Type::NA:
      return true;
    case arrow::Type::DICTIONARY:
      return IsReadable(*static_cast<const arrow::DictionaryType&>(type).value_type());
    default:
      return arrow::is_integer(type.id()) || arrow::is_decimal(type.id()) ||
             type.id() == arrow::Type::FLOAT || type.id() == arrow::Type::DOUBLE;
  }
}

template <typename ArrayType>
FieldValue StringAt(const arrow::Array& array, int64_t row) {
  const std::string_view text = static_cast<const ArrayType&>(array).GetView(row);
  return {Kind::kString, {text.data(), text.size()}};
}

template <typename ArrayType>
FieldValue NumberAt(const arrow::Array& array, int64_t row, std::string* digits) {
  digits->resize(64);
  const std::to_chars_result end = std::to_chars(digits->data(), digits->data() + digits->size(),
                                                 static_cast<const ArrayType&>(array).Value(row));
  return {Kind::kNumber, {digits->data(), static_cast<size_t>(end.ptr - digits->data())}};
}

template <typename ArrayType>
FieldValue DecimalAt(const arrow::Array& array, int64_t row, std::string* digits) {
  *digits = static_cast<const ArrayType&>(array).FormatValue(row);
  return {Kind::kNumber, *digits};
}

// The text holds as long as the array and `digits`. REQUIRES: IsReadable(type of the array).
FieldValue ValueAt(const arrow::Array& array, int64_t row, std::string* digits) {
  if (array.IsNull(row)) return {Kind::kNull, ""};
  switch (array.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      return StringAt<arrow::BinaryArray>(array, row);
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      return StringAt<arrow::LargeBinaryArray>(array, row);
    case arrow::Type::STRING_VIEW:
    case arrow::Type::BINARY_VIEW:
      return StringAt<arrow::BinaryViewArray>(array, row);
    case arrow::Type::BOOL:
      return {Kind::kBoolean, ""};
    case arrow::Type::INT8:
      return NumberAt<arrow::Int8Array>(array, row, digits);
    case arrow::Type::INT16:
      return NumberAt<arrow::Int16Array>(array, row, digits);
    case arrow::Type::INT32:
      return NumberAt<arrow::Int32Array>(array, row, digits);
    case arrow::Type::INT64:
      return NumberAt<arrow::Int64Array>(array, row, digits);
    case arrow::Type::UINT8:
      return NumberAt<arrow::UInt8Array>(array, row, digits);
    case arrow::Type::UINT16:
      return NumberAt<arrow::UInt16Array>(array, row, digits);
    case arrow::Type::UINT32:
      return NumberAt<arrow::UInt32Array>(array, row, digits);
    case arrow::Type::UINT64:
      return NumberAt<arrow::UInt64Array>(array, row, digits);
    case arrow::Type::FLOAT:
      return NumberAt<arrow::FloatArray>(array, row, digits);
    case arrow::Type::DOUBLE:
      return NumberAt<arrow::DoubleArray>(array, row, digits);
    case arrow::Type::DECIMAL32:
      return DecimalAt<arrow::Decimal32Array>(array, row, digits);
    case arrow::Type::DECIMAL64:
      return DecimalAt<arrow::Decimal64Array>(array, row, digits);
    case arrow::Type::DECIMAL128:
      return DecimalAt<arrow::Decimal128Array>(array, row, digits);
    case arrow::Type::DECIMAL256:
      return DecimalAt<arrow::Decimal256Array>(array, row, digits);
    case arrow::Type::DICTIONARY: {
      const auto& dictionary = static_cast<const arrow::DictionaryArray&>(array);
      return ValueAt(*dictionary.dictionary(), dictionary.GetValueIndex(row), digits);
    }
    default:
      return {};
  }
}

// A damaged file can have indices beyond its dictionary; Arrow does not look.
arrow::Status CheckIndices(const arrow::Array& array) {
  if (array.type_id() != arrow::Type::DICTIONARY) return arrow::Status::OK();
  const auto& dictionary = static_cast<const arrow::DictionaryArray&>(array);
  for (int64_t row = 0; row < array.length(); ++row) {
    if (array.IsNull(row)) continue;
    const int64_t index = dictionary.GetValueIndex(row);
    if (index < 0 || index >= dictionary.dictionary()->length()) {
      return arrow::Status::Invalid("index ", index, " of a dictionary of ",
                                    dictionary.dictionary()->length());
    }
  }
  return arrow::Status::OK();
}

class ParquetSource final : public RowSource {
 public:
  ParquetSource(const std::string& path, const ItemColumns& columns,
                const RowSourceOptions& options)
      : path_(path), names_(columns.names()), max_row_bytes_(options.max_row_bytes) {}

  absl::Status Open(const ItemColumns& columns);
  absl::StatusOr<bool> Next(Row* row) override;
  double fraction() const override {
    const int64_t rows = file_->parquet_reader()->metadata()->num_rows();
    return rows == 0 ? 0 : static_cast<double>(number_) / static_cast<double>(rows);
  }

 private:
  absl::Status OpenFile();
  absl::Status ChooseColumns(const ItemColumns& columns);
  absl::StatusOr<bool> ReadBatch();
  std::optional<Reject> TakeRow(FieldValues* values);

  const std::string path_;
  const std::array<std::string, kNumItemFields> names_;
  const size_t max_row_bytes_;

  std::unique_ptr<parquet::arrow::FileReader> file_;
  std::array<int, kNumItemFields> places_ = {};  // in a batch, -1 for none
  std::unique_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  std::array<std::shared_ptr<arrow::Array>, kNumItemFields> arrays_;  // of the batch
  int64_t at_ = 0;                                                    // next row in it
  int64_t number_ = 0;
  std::array<std::string, kNumItemFields> digits_;  // what numbers of the row point to
};

absl::Status ParquetSource::OpenFile() {
  std::shared_ptr<arrow::io::RandomAccessFile> file;
  std::error_code error;
  if (IsObject(path_)) {
    ASSIGN_OR_RETURN(file, OpenObjectAtRandom(path_));
  } else if (!std::filesystem::is_regular_file(path_, error)) {
    // What is no file cannot be read at any place; a pipe has lost its beginning already.
    return absl::InvalidArgumentError(path_ + ": Parquet is read from regular files only");
  }
  std::string head;
  RETURN_IF_ERROR(ReadGuarded(path_, [&]() -> arrow::Status {
    if (file == nullptr) {
      ARROW_ASSIGN_OR_RAISE(file, arrow::io::ReadableFile::Open(path_));
    }
    ARROW_ASSIGN_OR_RAISE(const auto bytes, file->ReadAt(0, kMagic.size()));
    head = bytes->ToString();
    return arrow::Status::OK();
  }));
  if (head != kMagic) {
    return absl::DataLossError(absl::StrCat(path_, ": expected Parquet, whose first bytes are ",
                                            kMagic, "; it may not be compressed as a whole"));
  }
  parquet::ReaderProperties properties;
  // A column is read in pieces; else a row group would be in memory as a whole.
  properties.enable_buffered_stream();
  properties.set_buffer_size(kReadBytes);
  parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
  arrow_properties.set_pre_buffer(false);
  arrow_properties.set_batch_size(kBatchRows);
  return ReadGuarded(path_, [&]() -> arrow::Status {
    parquet::arrow::FileReaderBuilder builder;
    ARROW_RETURN_NOT_OK(builder.Open(file, properties));
    ARROW_ASSIGN_OR_RAISE(file_, builder.properties(arrow_properties)->Build());
    return arrow::Status::OK();
  });
}

absl::Status ParquetSource::ChooseColumns(const ItemColumns& columns) {
  const std::vector<parquet::arrow::SchemaField>& schema = file_->manifest().schema_fields;
  std::vector<std::string> header;
  for (const parquet::arrow::SchemaField& column : schema) header.push_back(column.field->name());
  absl::StatusOr<std::array<int, kNumItemFields>> places = columns.FindIn(header);
  if (!places.ok()) {
    return absl::Status(places.status().code(),
                        absl::StrCat(path_, ": ", places.status().message()));
  }
  std::set<int> chosen;
  for (const int place : *places) {
    if (place < 0) continue;
    const arrow::Field& field = *schema[place].field;
    if (!IsReadable(*field.type())) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": column ", Quote(header[place]),
                       ": expected strings, numbers or booleans, got ", field.type()->ToString()));
    }
    chosen.insert(place);
  }
  // A batch holds the chosen columns in the order of the file.
  std::vector<int> leaves;
  for (const int place : chosen) leaves.push_back(schema[place].column_index);
  for (int field = 0; field < kNumItemFields; ++field) {
    const int place = (*places)[field];
    places_[field] =
        place < 0 ? -1 : static_cast<int>(std::distance(chosen.begin(), chosen.find(place)));
  }
  std::vector<int> row_groups(file_->num_row_groups());
  for (int i = 0; i < file_->num_row_groups(); ++i) row_groups[i] = i;
  return ReadGuarded(path_, [&]() -> arrow::Status {
    ARROW_ASSIGN_OR_RAISE(batches_, file_->GetRecordBatchReader(row_groups, leaves));
    return arrow::Status::OK();
  });
}

absl::Status ParquetSource::Open(const ItemColumns& columns) {
  RETURN_IF_ERROR(OpenFile());
  return ChooseColumns(columns);
}

absl::StatusOr<bool> ParquetSource::Next(Row* row) {
  while (batch_ == nullptr || at_ == batch_->num_rows()) {
    ASSIGN_OR_RETURN(const bool more, ReadBatch());
    if (!more) return false;
  }
  row->number = ++number_;
  row->is_blank = false;
  row->reject = TakeRow(&row->values);
  ++at_;
  return true;
}

absl::StatusOr<bool> ParquetSource::ReadBatch() {
  at_ = 0;
  RETURN_IF_ERROR(ReadGuarded(path_, [&]() -> arrow::Status {
    ARROW_RETURN_NOT_OK(batches_->ReadNext(&batch_));
    if (batch_ == nullptr) return arrow::Status::OK();
    for (const auto& column : batch_->columns()) ARROW_RETURN_NOT_OK(CheckIndices(*column));
    return batch_->Validate();
  }));
  if (batch_ == nullptr) return false;
  for (int field = 0; field < kNumItemFields; ++field) {
    if (places_[field] >= 0) arrays_[field] = batch_->column(places_[field]);
  }
  return true;
}

std::optional<Reject> ParquetSource::TakeRow(FieldValues* values) {
  values->fill({});
  size_t bytes = 0;
  for (int field = 0; field < kNumItemFields; ++field) {
    if (places_[field] < 0) continue;
    FieldValue& value = (*values)[field];
    value = ValueAt(*arrays_[field], at_, &digits_[field]);
    bytes += value.text.size();
    if (bytes > max_row_bytes_) {
      return Reject{"", absl::StrCat("row longer than ", max_row_bytes_, " bytes")};
    }
    if (value.kind != Kind::kString) continue;
    if (const size_t invalid = FindInvalidUtf8(value.text); invalid != absl::string_view::npos) {
      return Reject{names_[field], absl::StrCat("not UTF-8 at byte ", invalid + 1)};
    }
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowSource>> OpenParquetSource(const std::string& path,
                                                             const ItemColumns& columns,
                                                             const RowSourceOptions& options) {
  auto source = std::make_unique<ParquetSource>(path, columns, options);
  RETURN_IF_ERROR(source->Open(columns));
  return source;
}

}  // namespace pricer
