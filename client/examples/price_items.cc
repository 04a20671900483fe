// How a back end calls the server: price_items HOST:PORT

#include <iostream>
#include <memory>

#include "client/client.h"

namespace {

pricer::v1::Item Skillet() {
  pricer::v1::Item item;
  item.set_id("b-1");
  item.set_title("Cast iron skillet, 26 cm");
  item.set_brand("Forge");
  return item;
}

absl::Status PriceOne(pricer::Client* client) {
  pricer::v1::PredictPriceRequest request;
  *request.mutable_item() = Skillet();
  request.mutable_options()->add_interval_coverages(0.8);
  const absl::StatusOr<pricer::v1::PredictPriceResponse> response = client->PredictPrice(request);
  if (!response.ok()) return response.status();
  const pricer::v1::Prediction& prediction = response->prediction();
  std::cout << prediction.price() << " " << prediction.currency_code() << ", by version "
            << prediction.served_by().version() << '\n';
  return absl::OkStatus();
}

// A bad item fails alone.
absl::Status PriceMany(pricer::Client* client) {
  pricer::v1::BatchPredictPricesRequest request;
  *request.add_items() = Skillet();
  request.add_items()->set_title("Oak chair");
  const absl::StatusOr<pricer::v1::BatchPredictPricesResponse> response =
      client->BatchPredictPrices(request);
  if (!response.ok()) return response.status();
  for (const pricer::v1::ItemResult& result : response->results()) {
    if (result.has_prediction()) {
      std::cout << result.prediction().price() << '\n';
    } else {
      std::cout << "no price: " << result.error().message() << '\n';
    }
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  pricer::ClientOptions options;
  options.server = argc > 1 ? argv[1] : "dns:///prices:8500";
  // Attempts and waits together; see RetryOptions.
  options.retry.timeout = absl::Seconds(2);
  // One for the process: it is thread-safe, connects by itself, balances and tries again.
  const absl::StatusOr<std::unique_ptr<pricer::Client>> client = pricer::Client::Create(options);
  absl::Status status = client.status();
  if (status.ok()) status.Update(PriceOne(client->get()));
  if (status.ok()) status.Update(PriceMany(client->get()));
  if (!status.ok()) std::cerr << "price_items: " << status.message() << '\n';
  return status.ok() ? 0 : 1;
}
