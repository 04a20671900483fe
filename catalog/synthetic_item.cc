#include "catalog/synthetic_item.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace pricer {
namespace {

using Strings = std::vector<std::string>;

template <typename T>
const T& Pick(const std::vector<T>& choices, Random* random) {
  return choices[random->Index(choices.size())];
}

template <typename T>
void Shuffle(std::vector<T>* values, Random* random) {
  for (size_t i = values->size(); i > 1; --i)
    std::swap((*values)[i - 1], (*values)[random->Index(i)]);
}

// The first choice with probability `p`, else one of the others.
template <typename T>
const T& PickMostly(double p, const std::vector<T>& choices, Random* random) {
  if (choices.size() == 1 || random->Chance(p)) return choices[0];
  return choices[1 + random->Index(choices.size() - 1)];
}

// "cast iron" to "Cast Iron"; units stay small.
std::string TitleCase(absl::string_view text) {
  Strings words = absl::StrSplit(text, ' ');
  for (std::string& word : words) {
    const bool is_unit = word == "oz" || word == "ft" || word == "lb" || word == "mm";
    if (!word.empty() && !is_unit) word[0] = absl::ascii_toupper(word[0]);
  }
  return absl::StrJoin(words, " ");
}

std::string Capitalized(std::string text) {
  if (!text.empty()) text[0] = absl::ascii_toupper(text[0]);
  return text;
}

// "heat~s evenly" to "heats evenly" for one product, to "heat evenly" for several.
std::string Conjugate(absl::string_view phrase, bool plural) {
  Strings words = absl::StrSplit(phrase, ' ');
  for (std::string& word : words) {
    const size_t mark = word.find('~');
    if (mark == std::string::npos) continue;
    plural ? word.erase(mark) : word.erase(mark, 1);
  }
  return absl::StrJoin(words, " ");
}

bool IsSecondHand(const SyntheticProduct& product) { return product.condition->effect != 0; }

// Where a thing is said. `true` in at least one place for what moves the price.
struct Places {
  bool title = false;
  bool details = false;
  bool description = false;
};

class Writer {
 public:
  Writer(const SyntheticProduct& product, Random* random)
      : product_(product), random_(random), size_text_(SyntheticSizeText(product)) {}

  Item Write() {
    Item item;
    has_details_ = random_->Chance(0.75);
    has_description_ = random_->Chance(0.85);
    if (random_->Chance(0.85)) item.brand = product_.brand->name;
    if (random_->Chance(0.9)) item.category = product_.category->name;
    brand_in_title_ = item.brand.empty() || random_->Chance(0.8);
    size_ = Place(!size_text_.empty(), 0.65);
    material_ = Place(product_.material != nullptr, 0.6);
    pack_ = Place(product_.pack > 1, 0.9);
    condition_ = Place(IsSecondHand(product_), 0.65);
    item.title = Title();
    if (has_description_) item.description = Description();
    if (has_details_) item.details = Details();
    return item;
  }

 private:
  Places Place(bool exists, double in_title) {
    Places places;
    if (!exists) return places;
    places.title = random_->Chance(in_title);
    places.details = has_details_ && random_->Chance(0.6);
    places.description = has_description_ && random_->Chance(0.25);
    if (!places.details && !places.description) places.title = true;
    return places;
  }

  // "Nordvik Signature 10 Inch Cast Iron Frying Pan, Pack of 2, Black", in varying order.
  std::string Title() {
    Strings head;
    Strings tail;
    const bool type_first = brand_in_title_ && random_->Chance(0.2);
    const std::string brand_and_model = BrandAndModel();
    if (condition_.title && random_->Chance(0.5)) {
      head.push_back(product_.condition->titles[0]);
    } else if (condition_.title) {
      tail.push_back(Pick(product_.condition->titles, random_));
    }
    if (!type_first && !brand_and_model.empty()) head.push_back(brand_and_model);
    if (size_.title) (random_->Chance(0.5) ? head : tail).push_back(TitleCase(size_text_));
    if (material_.title) {
      (random_->Chance(0.6) ? head : tail).push_back(TitleCase(product_.material->name));
    }
    head.push_back(TitleCase(product_.type->name));
    if (type_first) head.push_back(absl::StrCat("by ", brand_and_model));
    if (pack_.title) tail.push_back(PackTitle());
    if (random_->Chance(0.4)) tail.push_back(TitleCase(product_.variant));
    Shuffle(&tail, random_);
    const char* const joint = random_->Chance(0.3) ? " - " : ", ";
    return absl::StrCat(absl::StrJoin(head, " "), tail.empty() ? "" : joint,
                        absl::StrJoin(tail, ", "));
  }

  std::string BrandAndModel() {
    const std::string& model = product_.model->name;
    if (!brand_in_title_) return model;
    return absl::StrCat(product_.brand->name, model.empty() ? "" : " ", model);
  }

  std::string PackTitle() {
    switch (random_->Index(3)) {
      case 0:
        return absl::StrCat(product_.pack, "-Pack");
      case 1:
        return absl::StrCat("Set of ", product_.pack);
      default:
        return absl::StrCat("Pack of ", product_.pack);
    }
  }

  std::string Description() {
    Strings more;
    if (material_.description) {
      const std::string& material = product_.material->name;
      more.push_back(random_->Chance(0.5) ? absl::StrCat("Made with ", material, ".")
                                          : absl::StrCat("Crafted in ", material, "."));
    }
    if (size_.description) more.push_back(absl::StrCat("This is the ", size_text_, " version."));
    if (pack_.description) {
      more.push_back(random_->Chance(0.5)
                         ? absl::StrCat("Comes as a pack of ", product_.pack, ".")
                         : absl::StrCat("You get ", product_.pack, " in one pack."));
    }
    if (condition_.description) more.push_back(Pick(product_.condition->sentences, random_));
    if (random_->Chance(0.4)) more.push_back(Pick(product_.category->closings, random_));
    Shuffle(&more, random_);
    more.insert(more.begin(), Opening());
    return absl::StrJoin(more, " ");
  }

  std::string Opening() {
    const bool plural = product_.type->plural;
    const std::string benefit = Conjugate(Pick(product_.category->benefits, random_), plural);
    const std::string& brand = product_.brand->name;
    const std::string& type = product_.type->name;
    const char* const demonstrative = plural ? "these" : "this";
    switch (random_->Index(5)) {
      case 0:
        return absl::StrCat("The ", brand, " ", type, " ", benefit, ".");
      case 1:
        return absl::StrCat("From ", brand, ": ", demonstrative, " ", type, " ", benefit, ".");
      case 2:
        return absl::StrCat("Meet ", demonstrative, " ", type, plural ? ": they " : ": it ",
                            benefit, ".");
      case 3:
        return absl::StrCat(Capitalized(demonstrative), " ", product_.variant, " ", type, " ",
                            benefit, ".");
      default:
        return absl::StrCat(Capitalized(demonstrative), " ", type, " ", benefit, ".");
    }
  }

  std::string Details() {
    Strings parts;
    if (size_.details) parts.push_back(absl::StrCat("Size: ", size_text_));
    if (material_.details) parts.push_back(absl::StrCat("Material: ", product_.material->name));
    if (pack_.details) parts.push_back(absl::StrCat("Pack: ", product_.pack));
    const bool says_new =
        product_.category->second_hand && !IsSecondHand(product_) && random_->Chance(0.3);
    if (condition_.details || says_new) {
      parts.push_back(absl::StrCat("Condition: ", product_.condition->detail));
    }
    if (parts.empty() || random_->Chance(0.5)) {
      const std::string& own_label = product_.type->variant_label;
      parts.push_back(absl::StrCat(own_label.empty() ? product_.category->variant_label : own_label,
                                   ": ", product_.variant));
    }
    Shuffle(&parts, random_);
    return absl::StrJoin(parts, "; ");
  }

  const SyntheticProduct& product_;
  Random* const random_;
  const std::string size_text_;
  bool has_details_ = false;
  bool has_description_ = false;
  bool brand_in_title_ = false;
  Places size_;
  Places material_;
  Places pack_;
  Places condition_;
};

}  // namespace

SyntheticProduct DrawSyntheticProduct(Random* random) {
  SyntheticProduct product;
  product.category = &Pick(SyntheticCategories(), random);
  product.type = &Pick(product.category->types, random);
  product.brand = &Pick(product.category->brands, random);
  product.model = &PickMostly(0.4, product.category->models, random);
  if (!product.type->materials.empty()) product.material = &Pick(product.type->materials, random);
  if (!product.type->size.values.empty()) product.size = Pick(product.type->size.values, random);
  product.pack = PickMostly(0.5, product.type->packs, random);
  product.condition = product.category->second_hand
                          ? &PickMostly(0.7, SyntheticConditions(), random)
                          : &SyntheticConditions()[0];
  product.variant = Pick(
      product.type->variants.empty() ? product.category->variants : product.type->variants, random);
  return product;
}

double SyntheticLogPrice(const SyntheticProduct& product) {
  const ProductType& type = *product.type;
  double log_price = std::log(type.base) + product.brand->effect + product.model->effect +
                     product.condition->effect + type.pack_exponent * std::log(product.pack);
  if (product.material != nullptr) log_price += product.material->effect;
  if (product.size > 0) {
    log_price += type.size.exponent * std::log(product.size / type.size.reference);
  }
  return log_price;
}

std::string SyntheticSizeText(const SyntheticProduct& product) {
  const std::string& format = product.type->size.format;
  if (product.size <= 0) return "";
  if (format == "{} GB" && product.size >= 1000) return absl::StrCat(product.size / 1000, " TB");
  return absl::StrReplaceAll(format, {{"{}", absl::StrCat(product.size)}});
}

Item DescribeSyntheticProduct(const SyntheticProduct& product, Random* random) {
  return Writer(product, random).Write();
}

}  // namespace pricer
