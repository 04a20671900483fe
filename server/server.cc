#include "server/server.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/build_info.h"
#include "base/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/steady_clock.h"
#include "server/access_tokens.h"
#include "server/adapter_folder.h"
#include "server/adapter_loader.h"
#include "server/adapter_memory.h"
#include "server/adapter_operator.h"
#include "server/adapter_registry.h"
#include "server/adapter_service.h"
#include "server/adapter_watcher.h"
#include "server/batch_scheduler.h"
#include "server/call_deadline.h"
#include "server/golden_checker.h"
#include "server/health_service.h"
#include "server/label_mover.h"
#include "server/listeners.h"
#include "server/metrics_listener.h"
#include "server/open_inference_service.h"
#include "server/operations_service.h"
#include "server/price_request.h"
#include "server/pricing_service.h"
#include "server/prometheus_metrics.h"
#include "server/reloading_credentials.h"
#include "server/self_check.h"
#include "server/ticker.h"
#include "server/tls_certificates.h"
#include "server/worker_pool.h"

namespace pricer {
namespace {

constexpr int kTokenizerThreads = 2;
constexpr char kTlsFlags[] = "--tls-cert, --tls-key and authorities of clients";
// One, so that what operators ask for happens in order.
constexpr int kOperatorThreads = 1;
// Calls that may wait for a thread.
constexpr size_t kMaxWaitingCalls = 64;

absl::Status OfFlag(absl::string_view flag, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(flag, ": ", status.message()));
}

}  // namespace

// In the order of construction; destroyed in reverse.
struct Server::Parts {
  explicit Parts(const ServerOptions& server_options)
      : options(server_options),
        metrics(static_cast<size_t>(options.metrics_adapters)),
        registry(options.default_adapter, &metrics, Clock::System()),
        operators(kOperatorThreads, kMaxWaitingCalls),
        tokenizers(kTokenizerThreads, kMaxWaitingCalls) {}

  AdapterTensorSource TensorSource();
  absl::Status OpenSecrets();
  absl::Status OpenListeners();
  absl::Status LoadEngine(const EngineFactory& make_engine);
  absl::Status LoadAdapters();
  void Serve();
  void StartSelfCheck();
  void SetReady(bool ready);
  bool Stop();

  const ServerOptions options;
  ServerPorts ports;
  PrometheusMetrics metrics;
  AdapterRegistry registry;
  HealthService health;
  WorkerPool operators;
  // Made by OpenSecrets; null where the options have none.
  std::unique_ptr<CertificateKeeper> certificates;
  std::unique_ptr<CertificateKeeper> admin_certificates;
  std::unique_ptr<TokenKeeper> tokens;
  // Made by OpenListeners.
  std::unique_ptr<PricingService> pricing;
  std::unique_ptr<AdapterService> admin;
  std::unique_ptr<OperationsService> operations;
  std::unique_ptr<OpenInferenceService> inference;
  std::unique_ptr<OpenInferenceService> admin_inference;
  // Made by LoadEngine.
  std::unique_ptr<Engine> engine;
  std::unique_ptr<AdapterMemory> memory;
  std::unique_ptr<PriceCache> cache;  // outlives what the scheduler still has to finish
  std::unique_ptr<BatchScheduler> scheduler;
  std::unique_ptr<AdapterLoader> loader;
  std::unique_ptr<AdapterWatcher> watcher;
  std::unique_ptr<GoldenChecker> golden;
  std::unique_ptr<LabelMover> labels;
  std::unique_ptr<AdapterOperator> adapters;
  WorkerPool tokenizers;
  PricingBackend backend;
  // Made by OpenListeners too.
  std::unique_ptr<MetricsListener> metrics_listener;
  Listener health_listener;
  Listener admin_listener;
  Listener pricing_listener;
  std::unique_ptr<Ticker> secrets_ticker;
  std::unique_ptr<SelfCheck> self_check;
  std::unique_ptr<Ticker> self_check_ticker;
  std::unique_ptr<Ticker> self_check_watch;
  bool serving = false;
  bool stopped = false;
};

absl::Status Server::Parts::OpenSecrets() {
  RETURN_IF_ERROR(CheckSecrets(options));
  if (options.has_tls()) {
    const auto open = [this](const std::string& client_ca) {
      return CertificateKeeper::Open({options.tls_cert, options.tls_key, client_ca});
    };
    ASSIGN_OR_RETURN(certificates, open(options.tls_client_ca));
    ASSIGN_OR_RETURN(admin_certificates, open(options.admin_client_ca()));
  }
  if (!options.tokens.empty()) {
    ASSIGN_OR_RETURN(tokens, TokenKeeper::Open(options.tokens));
  }
  if (certificates == nullptr && tokens == nullptr) return absl::OkStatus();
  if (certificates != nullptr) {
    metrics.CertificateExpires(certificates->current()->expires);
  }
  secrets_ticker = std::make_unique<Ticker>(options.poll_interval, [this] {
    if (certificates != nullptr) {
      certificates->Poll();
      metrics.CertificateExpires(certificates->current()->expires);
      admin_certificates->Poll();
    }
    if (tokens != nullptr) tokens->Poll();
  });
  return absl::OkStatus();
}

absl::Status Server::Parts::OpenListeners() {
  pricing = std::make_unique<PricingService>(&metrics, tokens.get());
  admin = std::make_unique<AdapterService>(&registry, &operators, &metrics, tokens.get());
  operations = std::make_unique<OperationsService>(&metrics, tokens.get());
  const auto is_ready = [this] { return health.IsServing(kHealthServer); };
  inference = std::make_unique<OpenInferenceService>(OpenInferenceService::Listener::kPricing,
                                                     &pricing->door(), &registry, is_ready);
  admin_inference = std::make_unique<OpenInferenceService>(OpenInferenceService::Listener::kAdmin,
                                                           &pricing->door(), &registry, is_ready);
  const auto credentials = [](const std::unique_ptr<CertificateKeeper>& keeper) {
    return keeper == nullptr ? nullptr : ReloadingCredentials(keeper.get());
  };
  ASSIGN_OR_RETURN(metrics_listener,
                   MetricsListener::Open("--metrics-listen", options.metrics_listen,
                                         metrics.registry(), tokens.get()));
  ASSIGN_OR_RETURN(
      health_listener,
      Listen({.flag = "--health-listen", .address = options.health_listen, .reflection = false},
             {&health}));
  ASSIGN_OR_RETURN(admin_listener, Listen({.flag = "--admin-listen",
                                           .address = options.admin_listen,
                                           .credentials = credentials(admin_certificates)},
                                          {admin.get(), operations.get(), admin_inference.get()}));
  ASSIGN_OR_RETURN(pricing_listener,
                   Listen({.flag = "--listen",
                           .address = options.listen,
                           .max_request_bytes = kMaxRequestBytes,
                           .credentials = credentials(certificates),
                           .max_connection_age = options.max_connection_age == absl::ZeroDuration()
                                                     ? absl::InfiniteDuration()
                                                     : options.max_connection_age},
                          {pricing.get(), inference.get()}));
  ports.metrics = metrics_listener->port();
  ports.health = health_listener.port;
  ports.admin = admin_listener.port;
  ports.pricing = pricing_listener.port;
  return absl::OkStatus();
}

absl::Status Server::Parts::LoadEngine(const EngineFactory& make_engine) {
  ASSIGN_OR_RETURN(engine, make_engine(options));
  metrics.DescribeBuild(engine->info().device);
  memory = std::make_unique<AdapterMemory>(options.adapter_memory, TensorSource(), &metrics,
                                           SteadyClock());
  registry.SetMemory(memory.get());
  scheduler = std::make_unique<BatchScheduler>(options.scheduler, engine->predictor(), &metrics,
                                               SteadyClock(), memory.get());
  cache = std::make_unique<PriceCache>(options.price_cache_bytes, scheduler.get(), &metrics,
                                       SteadyClock());
  loader = std::make_unique<AdapterLoader>(engine.get(), scheduler.get(), memory.get());
  const absl::StatusOr<std::shared_ptr<LoadedAdapter>> base = engine->LoadBase();
  registry.SetBase(base);
  if (!base.ok()) {
    LogInfo("the base prices nothing without an adapter",
            {{"reason", std::string(base.status().message())}});
  }
  return absl::OkStatus();
}

AdapterTensorSource Server::Parts::TensorSource() {
  AdapterTensorSource source;
  source.read = [this](const LoadedAdapter& adapter) {
    return loader->ReadAgain(adapter, AdapterDirectory(options.adapters, adapter.key));
  };
  if (engine->has_device_memory()) {
    source.copy_to_device = [this](const LoadedAdapter& adapter, const TensorsHandle& host) {
      return engine->CopyToDevice(adapter, host);
    };
  }
  return source;
}

absl::Status Server::Parts::LoadAdapters() {
  watcher = std::make_unique<AdapterWatcher>(
      AdapterWatcherOptions{.root = options.adapters, .poll_interval = options.poll_interval},
      [this](const std::string& directory) { return loader->Load(directory); }, &registry, &metrics,
      SteadyClock());
  golden = std::make_unique<GoldenChecker>(engine.get(), scheduler.get());
  labels = std::make_unique<LabelMover>(
      options.adapters, &registry, golden.get(),
      [this](const std::string& adapter) { watcher->RefreshLabels(adapter); }, Clock::System());
  adapters = std::make_unique<AdapterOperator>(&registry, watcher.get(), memory.get());
  return watcher->Poll();
}

void Server::Parts::Serve() {
  backend = {.engine = engine.get(),
             .registry = &registry,
             .scheduler = scheduler.get(),
             .cache = cache.get(),
             .pool = &tokenizers};
  pricing->Serve(&backend);
  admin->Serve({.labels = labels.get(), .adapters = adapters.get()});
  admin_inference->ServeRepository(adapters.get(), &operators);
  health.Set(kHealthStartup, true);
  SetReady(true);
  serving = true;
  watcher->Start();
  StartSelfCheck();
  LogInfo("serving", {{"port", absl::StrCat(ports.pricing)},
                      {"admin_port", absl::StrCat(ports.admin)},
                      {"health_port", absl::StrCat(ports.health)},
                      {"metrics_port", absl::StrCat(ports.metrics)},
                      {"model", engine->info().model_fingerprint},
                      {"weights", engine->info().weights},
                      {"dtype", engine->info().dtype},
                      {"device", engine->info().device},
                      {"version", std::string(BuildVersion())}});
}

void Server::Parts::StartSelfCheck() {
  if (options.self_check_interval == absl::ZeroDuration()) return;
  self_check = std::make_unique<SelfCheck>(
      &registry, golden.get(), options.self_check_timeout, SteadyClock(),
      [this](bool well, const std::string& reason) {
        if (well) {
          LogInfo("prices are right again: ready");
        } else {
          LogError("not ready: prices are not what they were", {{"error", reason}});
        }
        SetReady(well);
      });
  self_check_ticker =
      std::make_unique<Ticker>(options.self_check_interval, [this] { self_check->Check(); });
  self_check_watch = std::make_unique<Ticker>(
      std::min(options.self_check_timeout, absl::Seconds(1)), [this] { self_check->Watch(); });
}

void Server::Parts::SetReady(bool ready) {
  metrics.ReadyChanged(ready);
  health.Set(kHealthServer, ready);
  health.Set(kHealthPricing, ready);
}

bool Server::Parts::Stop() {
  if (std::exchange(stopped, true)) return true;
  const absl::Time deadline = SteadyClock()->Now() + options.grace_period;
  // gRPC's deadlines are the machine's time.
  const auto grpc_deadline = [deadline] {
    return absl::ToChronoTime(OnClock(deadline, *SteadyClock(), *Clock::System()));
  };
  if (golden != nullptr) golden->Cancel();
  self_check_watch.reset();
  self_check_ticker.reset();
  SetReady(false);
  if (watcher != nullptr) watcher->RequestStop();
  if (loader != nullptr) loader->Cancel();
  if (serving) options.sleep(std::min(options.notice_period, options.grace_period / 10));
  if (pricing != nullptr) pricing->Refuse();
  if (admin != nullptr) admin->EndWatches();
  if (pricing_listener.server != nullptr) {
    pricing_listener.server->Shutdown(grpc_deadline());
  }
  // No call is left that needs it, but an operator's may wait for a read that does not return.
  if (memory != nullptr) memory->RequestStop();
  if (admin_listener.server != nullptr) {
    admin_listener.server->Shutdown(grpc_deadline());
  }
  operators.Stop();
  tokenizers.Stop();
  if (scheduler != nullptr) scheduler->Stop(deadline);
  if (health_listener.server != nullptr) {
    // Ends the watches at once: they have been told.
    health_listener.server->Shutdown(std::chrono::system_clock::now());
  }
  metrics_listener.reset();
  const bool watcher_ended = watcher == nullptr || watcher->Stop(deadline);
  const bool memory_ended = memory == nullptr || memory->Stop(deadline);
  if (watcher_ended && memory_ended) return true;
  LogWarning("an adapter's load has not returned within the grace period",
             {{"path", options.adapters}});
  return false;
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Server::~Server() { parts_->Stop(); }

const ServerPorts& Server::ports() const { return parts_->ports; }

bool Server::Stop() { return parts_->Stop(); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      const EngineFactory& make_engine,
                                                      const std::function<void()>& before_serving) {
  RETURN_IF_ERROR(options.CheckDirectories());
  // Stops whatever was started if a later step fails.
  std::unique_ptr<Server> server(new Server(std::make_unique<Parts>(options)));
  RETURN_IF_ERROR(server->parts_->OpenSecrets());
  RETURN_IF_ERROR(server->parts_->OpenListeners());
  RETURN_IF_ERROR(server->parts_->LoadEngine(make_engine));
  RETURN_IF_ERROR(server->parts_->LoadAdapters());
  before_serving();
  server->parts_->Serve();
  return server;
}

absl::Status Server::CheckSecrets(const ServerOptions& options) {
  if (options.has_tls()) {
    for (const std::string& client_ca : {options.tls_client_ca, options.admin_client_ca()}) {
      const absl::Status status =
          ReadTlsFiles({options.tls_cert, options.tls_key, client_ca}).status();
      if (!status.ok()) return OfFlag(kTlsFlags, status);
    }
  }
  if (options.tokens.empty()) return absl::OkStatus();
  const absl::Status status = TokenKeeper::Open(options.tokens).status();
  return status.ok() ? status : OfFlag("--tokens", status);
}

}  // namespace pricer
