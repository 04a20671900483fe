#include "client/commands/replay.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "catalog/byte_source.h"
#include "catalog/line_reader.h"
#include "client/client.h"
#include "client/commands/common_flags.h"
#include "client/reply_json.h"

namespace pricer {
namespace {

// More than the longest item and its prices.
constexpr size_t kMaxLineBytes = size_t{1} << 20;
// What rounding may do where a processor's kernels depend on a batch's other items.
constexpr double kDefaultTolerance = 1e-5;

struct ReplayFlags {
  ConnectionFlags connection;
  std::string input;
  double tolerance = kDefaultTolerance;

  absl::Status Validate() const {
    if (!(tolerance >= 0 && tolerance < 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--tolerance: expected a share, at least 0 and below 1, got ", tolerance));
    }
    return connection.Validate();
  }
};

struct Counts {
  int64_t replies = 0;
  int64_t differing = 0;
};

absl::Status OfLine(const std::string& input, int64_t line, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(input, ":", line, ": ", status.message()));
}

// By the version that answered then.
absl::StatusOr<v1::PredictPriceResponse> PriceAnew(const Reply& reply, Client* client) {
  v1::PredictPriceRequest request = reply.request;
  request.mutable_options()->set_no_cache(true);
  request.mutable_options()->set_lane(v1::LANE_BULK);
  return client->PredictPrice(request);
}

absl::StatusOr<Counts> ReplayAll(const ReplayFlags& flags, LineReader* lines, Client* client) {
  Counts counts;
  LineReader::Line line;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, lines->Next(&line));
    if (!more) return counts;
    if (line.too_long) {
      return OfLine(flags.input, line.number,
                    absl::InvalidArgumentError("is longer than 1 MiB: no reply is"));
    }
    if (absl::StripAsciiWhitespace(line.text).empty()) continue;
    const absl::StatusOr<Reply> reply = ReplyFromJson(line.text);
    if (!reply.ok()) return OfLine(flags.input, line.number, reply.status());
    ++counts.replies;
    const absl::StatusOr<v1::PredictPriceResponse> anew = PriceAnew(*reply, client);
    if (!anew.ok()) return OfLine(flags.input, line.number, anew.status());
    const absl::Status same =
        CompareReplies(reply->prediction, anew->prediction(), flags.tolerance);
    if (same.ok()) continue;
    ++counts.differing;
    std::cout << absl::StrFormat("%s:%d: %s\n", flags.input, line.number, same.message());
  }
}

absl::StatusOr<int> Run(const ReplayFlags& flags) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, OpenByteSource(flags.input));
  LineReader lines(std::move(source), kMaxLineBytes);
  ASSIGN_OR_RETURN(const ClientOptions connection, flags.connection.Options());
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(connection));
  ASSIGN_OR_RETURN(const Counts counts, ReplayAll(flags, &lines, client.get()));
  std::cout << absl::StrFormat("%d replies, %d reproduced, %d differ\n", counts.replies,
                               counts.replies - counts.differing, counts.differing);
  return counts.differing == 0 ? kExitDone : kExitGateNotPassed;
}

}  // namespace

Command AddReplayCommand(CLI::App& parent) {
  auto flags = std::make_shared<ReplayFlags>();
  CLI::App* app = parent.add_subcommand(
      "replay",
      "prices logged replies again, by the versions that answered; exit code 4 where one "
      "comes out otherwise");
  flags->connection.AddTo(app, "127.0.0.1:8500");
  app->add_option("--input", flags->input, "lines as pricer price --json prints them")->required();
  app->add_option("--tolerance", flags->tolerance, "share that a price may differ by")
      ->capture_default_str();
  return {app, [flags] { return flags->Validate(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
