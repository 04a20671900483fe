#include "client/adapter_sync.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "catalog/byte_sink.h"
#include "catalog/byte_source.h"
#include "catalog/object_store.h"
#include "model/adapter_directory.h"
#include "model/adapter_labels.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

// Of a file of labels, or a marker.
constexpr int64_t kMaxSmallFileBytes = int64_t{1} << 20;

struct Key {
  std::string name;
  int64_t version = 0;

  auto operator<=>(const Key&) const = default;
  std::string Path(absl::string_view file) const {
    return absl::StrCat(name, "/", version, "/", file);
  }
  std::string ToString() const { return absl::StrCat(name, "/", version); }
};

// Sizes of a version's files by their names, its marker among them.
using VersionFiles = std::map<std::string, int64_t>;
using Versions = std::map<Key, VersionFiles>;

// A file of a version, or nothing where the path below a place is none.
struct VersionFile {
  Key key;
  std::string file;
};
std::optional<VersionFile> ParseVersionFile(absl::string_view path) {
  const std::vector<std::string> parts = absl::StrSplit(path, '/');
  if (parts.size() != 3 || !ValidateAdapterName(parts[0]).ok()) return std::nullopt;
  const std::optional<int64_t> version = ParseAdapterVersion(parts[1]);
  // Hidden ones are temporary, and `..` would lead out of the folder.
  if (!version.has_value() || parts[2].empty() || parts[2].front() == '.') return std::nullopt;
  return VersionFile{.key = {parts[0], *version}, .file = parts[2]};
}

// One without a marker does not exist.
Versions OnlyReady(Versions versions) {
  std::erase_if(versions, [](const auto& version) {
    return version.second.count(std::string(kReadyFile)) == 0;
  });
  return versions;
}

// Where adapters are.
class AdapterPlace {
 public:
  virtual ~AdapterPlace() = default;

  virtual absl::StatusOr<Versions> List() const = 0;
  virtual absl::StatusOr<VersionFiles> FilesOf(const Key& key) const = 0;
  // Small ones; NotFound where there is none.
  virtual absl::StatusOr<std::string> Read(const std::string& path) const = 0;
  virtual absl::Status Write(const std::string& path, absl::string_view contents) const = 0;
  // Copies a file to one on the disk.
  virtual absl::Status Fetch(const std::string& path, const std::string& to) const = 0;
  // Copies a version's files to here.
  virtual absl::Status Add(const Key& key, const VersionFiles& files,
                           const AdapterPlace& from) const = 0;
  virtual absl::Status Remove(const Key& key, const VersionFiles& files) const = 0;
  // Removes what copies to here have left of an adapter that were killed.
  virtual void RemoveAbandoned(const std::string& /*name*/) const {}
};

class Folder final : public AdapterPlace {
 public:
  explicit Folder(std::string root) : root_(std::move(root)) {}

  absl::StatusOr<Versions> List() const override {
    Versions versions;
    ASSIGN_OR_RETURN(const std::vector<std::string> names, EntriesOf(""));
    for (const std::string& name : names) {
      if (!ValidateAdapterName(name).ok()) continue;
      ASSIGN_OR_RETURN(const std::vector<std::string> numbers, EntriesBelow(name));
      for (const std::string& number : numbers) {
        const std::optional<int64_t> version = ParseAdapterVersion(number);
        if (!version.has_value()) continue;
        const Key key = {name, *version};
        ASSIGN_OR_RETURN(versions[key], FilesOf(key));
      }
    }
    return OnlyReady(std::move(versions));
  }

  absl::StatusOr<VersionFiles> FilesOf(const Key& key) const override {
    VersionFiles files;
    ASSIGN_OR_RETURN(const std::vector<std::string> names, EntriesBelow(key.ToString()));
    for (const std::string& name : names) {
      std::error_code gone;
      const fs::path path = PathOf(key.Path(name));
      if (!ParseVersionFile(key.Path(name)).has_value() || !fs::is_regular_file(path, gone)) {
        continue;
      }
      files[name] = static_cast<int64_t>(fs::file_size(path, gone));
    }
    return files;
  }

  absl::StatusOr<std::string> Read(const std::string& path) const override {
    return ReadAdapterFile(root_, path, kMaxSmallFileBytes);
  }

  absl::Status Write(const std::string& path, absl::string_view contents) const override {
    return WriteFileAtomically(PathOf(path), contents);
  }

  absl::Status Fetch(const std::string& path, const std::string& to) const override {
    RETURN_IF_ERROR(CheckInsideFolder(PathOf(path), root_));
    ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenFileAsItIs(PathOf(path)));
    ASSIGN_OR_RETURN(const std::unique_ptr<ByteSink> file, ByteSink::CreateAsItIs(to));
    return CopyBytes(source.get(), file.get());
  }

  absl::Status Add(const Key& key, const VersionFiles& files,
                   const AdapterPlace& from) const override {
    const auto write = [&](const std::string& directory) -> absl::StatusOr<std::string> {
      for (const auto& [file, bytes] : files) {
        if (file == kReadyFile) continue;
        RETURN_IF_ERROR(from.Fetch(key.Path(file), absl::StrCat(directory, "/", file)));
      }
      return from.Read(key.Path(kReadyFile));
    };
    return PlaceVersion(root_, key.name, key.version, write).status();
  }

  absl::Status Remove(const Key& key, const VersionFiles& /*files*/) const override {
    RETURN_IF_ERROR(CheckInsideFolder(PathOf(key.ToString()), root_));
    std::error_code error;
    fs::remove(PathOf(key.Path(kReadyFile)), error);
    if (!error) fs::remove_all(PathOf(key.ToString()), error);
    if (error) return ErrorCodeStatus(error, "cannot remove", PathOf(key.ToString()));
    return absl::OkStatus();
  }

  void RemoveAbandoned(const std::string& name) const override {
    const absl::StatusOr<std::vector<std::string>> entries = EntriesBelow(name);
    if (!entries.ok()) return;  // which the copy will say
    for (const std::string& entry : *entries) {
      const std::string path = PathOf(absl::StrCat(name, "/", entry));
      if (!TemporaryDirectory::IsAbandoned(path, absl::Now()) ||
          !CheckInsideFolder(path, root_).ok()) {
        continue;
      }
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  }

  std::string PathOf(const std::string& path) const { return absl::StrCat(root_, "/", path); }

 private:
  absl::StatusOr<std::vector<std::string>> EntriesOf(const std::string& path) const {
    std::vector<std::string> names;
    std::error_code error;
    fs::directory_iterator entry(PathOf(path), error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
      names.push_back(entry->path().filename().string());
    }
    if (error) return ErrorCodeStatus(error, "cannot list", PathOf(path));
    return names;
  }
  // None where that is gone, or no directory.
  absl::StatusOr<std::vector<std::string>> EntriesBelow(const std::string& path) const {
    std::error_code error;
    if (!fs::is_directory(PathOf(path), error)) return std::vector<std::string>();
    absl::StatusOr<std::vector<std::string>> names = EntriesOf(path);
    if (absl::IsNotFound(names.status())) return std::vector<std::string>();
    return names;
  }

  const std::string root_;
};

class Objects final : public AdapterPlace {
 public:
  explicit Objects(std::string root) : root_(std::move(root)) {}

  absl::StatusOr<Versions> List() const override {
    ASSIGN_OR_RETURN(const std::vector<ListedObject> objects, ListObjects(root_));
    Versions versions;
    for (const ListedObject& object : objects) {
      const std::optional<VersionFile> file = ParseVersionFile(object.path);
      if (file.has_value()) versions[file->key][file->file] = object.bytes;
    }
    return OnlyReady(std::move(versions));
  }

  absl::StatusOr<VersionFiles> FilesOf(const Key& key) const override {
    ASSIGN_OR_RETURN(const std::vector<ListedObject> objects,
                     ListObjects(ObjectBelow(root_, key.ToString())));
    VersionFiles files;
    for (const ListedObject& object : objects) {
      if (ParseVersionFile(key.Path(object.path)).has_value()) files[object.path] = object.bytes;
    }
    return files;
  }

  absl::StatusOr<std::string> Read(const std::string& path) const override {
    const std::string object = ObjectBelow(root_, path);
    ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenObject(object));
    std::string contents(kMaxSmallFileBytes + 1, '\0');
    size_t size = 0;
    while (size < contents.size()) {
      ASSIGN_OR_RETURN(const size_t n, source->Read(&contents[size], contents.size() - size));
      if (n == 0) {
        contents.resize(size);
        return contents;
      }
      size += n;
    }
    return absl::DataLossError(
        absl::StrCat(object, ": expected at most ", kMaxSmallFileBytes, " bytes, got more"));
  }

  absl::Status Write(const std::string& path, absl::string_view contents) const override {
    std::error_code error;
    const fs::path parent = fs::temp_directory_path(error);
    ASSIGN_OR_RETURN(const TemporaryDirectory directory,
                     TemporaryDirectory::Create(error ? "." : parent.string()));
    const std::string file = directory.path() + "/contents";
    RETURN_IF_ERROR(WriteFile(file, contents));
    return UploadFile(file, ObjectBelow(root_, path));
  }

  absl::Status Fetch(const std::string& path, const std::string& to) const override {
    return DownloadFile(ObjectBelow(root_, path), to);
  }

  absl::Status Add(const Key& key, const VersionFiles& files,
                   const AdapterPlace& from) const override {
    const auto& folder = static_cast<const Folder&>(from);  // see Validate
    const std::string marker(kReadyFile);
    for (const auto& [file, bytes] : files) {
      if (file != marker) RETURN_IF_ERROR(Upload(key.Path(file), folder));
    }
    return Upload(key.Path(marker), folder);
  }

  absl::Status Remove(const Key& key, const VersionFiles& files) const override {
    RETURN_IF_ERROR(DeleteObject(ObjectBelow(root_, key.Path(kReadyFile))));
    for (const auto& [file, bytes] : files) {
      if (file != kReadyFile) RETURN_IF_ERROR(DeleteObject(ObjectBelow(root_, key.Path(file))));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Upload(const std::string& path, const Folder& from) const {
    RETURN_IF_ERROR(CheckInsideFolder(from.PathOf(path), from.PathOf(".")));
    return UploadFile(from.PathOf(path), ObjectBelow(root_, path));
  }

  const std::string root_;
};

std::unique_ptr<AdapterPlace> OpenPlace(const std::string& place) {
  if (IsObject(place)) return std::make_unique<Objects>(place);
  return std::make_unique<Folder>(place);
}

class Sync {
 public:
  Sync(const AdapterSyncOptions& options, const std::function<bool()>& stop,
       const std::function<void(const std::string& line)>& say)
      : options_(options),
        stop_(stop),
        say_(say),
        from_(OpenPlace(options.from)),
        to_(OpenPlace(options.to)) {}

  absl::StatusOr<AdapterSyncReport> Run() {
    ASSIGN_OR_RETURN(Versions from, List(*from_));
    ASSIGN_OR_RETURN(present_, List(*to_));
    std::set<std::string> names;
    for (const auto& [key, files] : from) names.insert(key.name);
    for (const std::string& name : names) to_->RemoveAbandoned(name);
    const std::map<std::string, AdapterLabels> labels = ReadAllLabels(from);
    // What a label names may have come after the first look.
    if (!HasAll(from, labels)) {
      ASSIGN_OR_RETURN(from, List(*from_));
    }
    report_.versions = static_cast<int>(from.size());
    for (const auto& [key, files] : from) {
      if (stop_ && stop_()) return absl::CancelledError("interrupted");
      Note(key.ToString(), Copy(key, files));
    }
    for (const auto& [name, ours] : labels) Note(name, CopyLabels(name, ours, from));
    if (options_.remove && !from.empty()) RemoveOthers(from);
    return std::move(report_);
  }

 private:
  absl::StatusOr<Versions> List(const AdapterPlace& place) const {
    ASSIGN_OR_RETURN(Versions versions, place.List());
    std::erase_if(versions, [this](const auto& version) {
      return !options_.name.empty() && version.first.name != options_.name;
    });
    return versions;
  }

  void Note(const std::string& what, const absl::Status& status) {
    if (status.ok()) return;
    report_.failures.emplace_back(status.code(), absl::StrCat(what, ": ", status.message()));
  }

  absl::Status Copy(const Key& key, const VersionFiles& files) {
    if (const auto there = present_.find(key); there != present_.end()) {
      if (there->second == files) return absl::OkStatus();
      return absl::FailedPreconditionError(
          absl::StrCat("its files have other sizes in ", options_.to, " than in ", options_.from,
                       "; a version does not change: publish it under a number of its own"));
    }
    // A list of everything is made in parts, and this one may have come between two of them.
    ASSIGN_OR_RETURN(const VersionFiles now, from_->FilesOf(key));
    RETURN_IF_ERROR(to_->Add(key, now, *from_));
    present_[key] = now;
    ++report_.copied;
    say_(absl::StrCat(key.ToString(), " is copied"));
    return absl::OkStatus();
  }

  // Nothing where the place has none.
  static absl::StatusOr<std::optional<AdapterLabels>> ReadLabels(const AdapterPlace& place,
                                                                 const std::string& root,
                                                                 const std::string& name) {
    const std::string path = LabelsPath(name);
    const absl::StatusOr<std::string> text = place.Read(path);
    if (absl::IsNotFound(text.status())) return std::optional<AdapterLabels>();
    RETURN_IF_ERROR(text.status());
    return AdapterLabels::Parse(*text, absl::StrCat(root, "/", path));
  }

  // By the names of their adapters; what cannot be read is noted.
  std::map<std::string, AdapterLabels> ReadAllLabels(const Versions& from) {
    std::map<std::string, AdapterLabels> all;
    std::string latest;
    for (const auto& [key, files] : from) {
      if (key.name == latest) continue;
      latest = key.name;
      const auto labels = ReadLabels(*from_, options_.from, key.name);
      Note(key.name, labels.status());
      if (labels.ok() && labels->has_value()) all[key.name] = **labels;
    }
    return all;
  }

  static bool HasAll(const Versions& versions, const std::map<std::string, AdapterLabels>& labels) {
    for (const auto& [name, of_name] : labels) {
      for (const auto& [label, target] : of_name.labels) {
        if (versions.count({name, target.version}) == 0) return false;
      }
    }
    return true;
  }

  absl::Status CopyLabels(const std::string& name, const AdapterLabels& ours,
                          const Versions& from) {
    ASSIGN_OR_RETURN(const std::optional<AdapterLabels> theirs,
                     ReadLabels(*to_, options_.to, name));
    const std::string text = ours.ToJson();
    if (theirs.has_value()) {
      if (theirs->ToJson() == text) return absl::OkStatus();
      if (theirs->generation >= ours.generation) {
        return absl::FailedPreconditionError(absl::StrCat(
            "its labels were moved in ", options_.to, " too: generation ", theirs->generation,
            " there, ", ours.generation, " in ", options_.from, "; move them in one place"));
      }
    }
    for (const auto& [label, target] : ours.labels) {
      // One that is nowhere is missed by servers of `from` as well.
      const Key key = {name, target.version};
      if (present_.count(key) > 0 || from.count(key) == 0) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          "label ", label, " is version ", target.version, ", which is not in ", options_.to));
    }
    RETURN_IF_ERROR(to_->Write(LabelsPath(name), text));
    ++report_.labels;
    say_(absl::StrCat(name, ": labels of generation ", ours.generation, " are copied"));
    return absl::OkStatus();
  }

  void RemoveOthers(const Versions& from) {
    for (const auto& [key, files] : present_) {
      if (from.count(key) > 0 || (stop_ && stop_())) continue;
      Note(key.ToString(), RemoveOne(key, files));
    }
  }

  absl::Status RemoveOne(const Key& key, const VersionFiles& files) {
    ASSIGN_OR_RETURN(const std::optional<AdapterLabels> labels,
                     ReadLabels(*to_, options_.to, key.name));
    for (const auto& [label, target] : labels.value_or(AdapterLabels()).labels) {
      if (target.version == key.version) return absl::OkStatus();
    }
    RETURN_IF_ERROR(to_->Remove(key, files));
    ++report_.removed;
    say_(absl::StrCat(key.ToString(), " is removed"));
    return absl::OkStatus();
  }

  static std::string LabelsPath(const std::string& name) {
    return absl::StrCat(name, "/", kLabelsFile);
  }

  const AdapterSyncOptions& options_;
  const std::function<bool()>& stop_;
  const std::function<void(const std::string& line)>& say_;
  const std::unique_ptr<AdapterPlace> from_;
  const std::unique_ptr<AdapterPlace> to_;
  Versions present_;  // in `to`
  AdapterSyncReport report_;
};

}  // namespace

absl::Status AdapterSyncOptions::Validate() const {
  if (from.empty() || to.empty()) {
    return absl::InvalidArgumentError("expected two places, got an empty name");
  }
  if (IsObject(from) && IsObject(to)) {
    return absl::InvalidArgumentError(
        absl::StrCat(to, ": expected a folder as one of the two, got objects"));
  }
  if (from == to || SameFile(from, to)) {
    return absl::InvalidArgumentError(absl::StrCat(to, ": expected another place than ", from));
  }
  return absl::OkStatus();
}

absl::StatusOr<AdapterSyncReport> SyncAdapters(
    const AdapterSyncOptions& options, const std::function<bool()>& stop,
    const std::function<void(const std::string& line)>& say) {
  RETURN_IF_ERROR(options.Validate());
  return Sync(options, stop, say).Run();
}

}  // namespace pricer
