#pragma once

#include <string>
#include <vector>

namespace pricer {

// What the synthetic catalogue is made of. Effects are differences in ln(price) from the usual
// case.

struct PricedWord {
  std::string name;
  double effect = 0;
};

// A quantity that is part of the price: ln(price) grows by exponent * ln(value / reference).
struct SizeRule {
  // With "{}" in the place of the value: "{} inch". Empty: the type has no size.
  std::string format;
  std::vector<double> values;
  double reference = 1;
  double exponent = 0;
};

struct ProductType {
  std::string name;
  bool plural = false;
  // USD, for the middle of the brands, the reference size, one piece, the material of effect 0, the
  // plain model and new.
  double base = 0;
  SizeRule size = {};
  std::vector<PricedWord> materials = {};
  // 1 = not sold in packs.
  std::vector<int> packs = {1};
  double pack_exponent = 0;
  // Colours, flavours and the like: told, not priced. Empty: those of the category; likewise the
  // label.
  std::vector<std::string> variants = {};
  std::string variant_label = {};
};

struct Category {
  std::string name;
  std::vector<PricedWord> brands;
  std::vector<PricedWord> models;
  // Whether refurbished and used pieces are sold.
  bool second_hand = false;
  std::string variant_label;
  std::vector<std::string> variants;
  // What a product of the category does, to follow its name; "~s" and "~es" stand where a verb of a
  // single product takes an ending: "heat~s evenly".
  std::vector<std::string> benefits;
  // Whole sentences.
  std::vector<std::string> closings;
  std::vector<ProductType> types;
};

struct Condition {
  std::string name;
  double effect = 0;
  // How titles, details and descriptions say it; none for new.
  std::vector<std::string> titles;
  std::string detail;
  std::vector<std::string> sentences;
};

// Built once; lives for ever.
const std::vector<Category>& SyntheticCategories();

// new, refurbished, used.
const std::vector<Condition>& SyntheticConditions();

}  // namespace pricer
