#pragma once

#include <string>

#include "catalog/item.h"
#include "catalog/random.h"
#include "catalog/synthetic_tables.h"

namespace pricer {

// Everything that makes the price of a synthetic product, and its colour or flavour, which does
// not. Points into the tables of synthetic_tables.h.
struct SyntheticProduct {
  const Category* category = nullptr;
  const ProductType* type = nullptr;
  const PricedWord* brand = nullptr;
  const PricedWord* model = nullptr;     // with an empty name: the plain model
  const PricedWord* material = nullptr;  // null where the type has no choice of materials
  const Condition* condition = nullptr;
  double size = 0;  // 0 where the type has no size
  int pack = 1;
  std::string variant;
};

SyntheticProduct DrawSyntheticProduct(Random* random);

// The hedonic formula (Rosen 1974; semi-log form), without noise:
//   ln(price) = ln(base of the type) + brand + model + material + condition
//               + size_exponent * ln(size / size_reference) + pack_exponent * ln(pack)
// exp of it is the median of the prices that such a product has.
double SyntheticLogPrice(const SyntheticProduct& product);

// "10 inch", "2 TB"; empty where the type has no size.
std::string SyntheticSizeText(const SyntheticProduct& product);

// A shop's words for the product: title, and with chance brand, category, description and details.
// Whatever moves the price can be read somewhere in them: the type, brand, size and material by
// name, a model by its word, a pack by its number, a second-hand condition by "refurbished" or
// "used". What is not said is the usual case: plain model, one piece, new. Without id and price.
Item DescribeSyntheticProduct(const SyntheticProduct& product, Random* random);

}  // namespace pricer
