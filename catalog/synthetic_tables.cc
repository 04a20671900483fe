#include "catalog/synthetic_tables.h"

namespace pricer {
namespace {

using Words = std::vector<PricedWord>;
using Strings = std::vector<std::string>;

// Brands by trade, from cheap to dear.
Words HomeBrands() {
  return {{"Homely Basics", -0.5}, {"Kettle & Co", -0.28}, {"Birchwood", -0.08},
          {"Hearthline", 0.12},    {"Nordvik", 0.38},      {"Maison Delacroix", 0.7}};
}
Words TechnicalBrands() {
  return {{"Zentek", -0.5},  {"Voltbay", -0.28},  {"Corelink", -0.08},
          {"Redmill", 0.12}, {"Stahlwerk", 0.38}, {"Kessler", 0.7}};
}
Words FashionBrands() {
  return {{"Simply You", -0.5}, {"Fern & Dew", -0.28}, {"Harbor & Pine", -0.08},
          {"Alder Lane", 0.12}, {"Vestra", 0.38},      {"Élan Paris", 0.7}};
}
Words FamilyBrands() {
  return {{"Happy Value", -0.5},   {"Sunny Acre", -0.28}, {"Millbrook", -0.08},
          {"Green Orchard", 0.12}, {"Terra Alta", 0.38},  {"Hollis & Finch", 0.7}};
}

// Models of a brand: two ladders of words, for machines and for everything else.
Words TechnicalModels() {
  return {{"", 0}, {"Lite", -0.25}, {"Plus", 0.18}, {"Pro", 0.38}, {"Ultra", 0.55}};
}
Words HouseModels() {
  return {{"", 0}, {"Essential", -0.25}, {"Select", 0.18}, {"Reserve", 0.38}, {"Signature", 0.55}};
}

Strings HomeColors() {
  return {"black", "white", "grey", "sage green", "navy blue", "cream", "red"};
}
Strings TechColors() { return {"black", "white", "silver", "midnight blue", "graphite"}; }
Strings FashionColors() {
  return {"black", "navy", "olive", "burgundy", "beige", "charcoal", "white"};
}
Strings ToolColors() { return {"black", "yellow", "red", "green", "blue"}; }
Strings PlayColors() { return {"blue", "pink", "green", "yellow", "brown", "multicolor"}; }

Words Woods() { return {{"MDF", -0.35}, {"pine", 0}, {"oak", 0.45}, {"walnut", 0.65}}; }
Words Metals() {
  return {{"stainless steel", -0.7}, {"sterling silver", 0}, {"14k gold", 1.2}, {"platinum", 1.7}};
}

Category Kitchen() {
  return {"Kitchen & Dining",
          HomeBrands(),
          HouseModels(),
          false,
          "Color",
          HomeColors(),
          {"stand~s up to daily cooking", "look~s at home on any counter", "clean~s up in seconds",
           "feel~s solid in the hand", "last~s for years"},
          {"Rinse before first use.", "Dishwasher safe.", "Designed for small kitchens."},
          {{"frying pan",
            false,
            32,
            {"{} inch", {8, 10, 12, 14}, 10, 0.9},
            {{"aluminum", -0.25}, {"stainless steel", 0}, {"cast iron", 0.15}, {"copper", 0.6}}},
           {"electric kettle",
            false,
            38,
            {"{} L", {0.8, 1.2, 1.7, 2.5}, 1.7, 0.5},
            {{"plastic", -0.35}, {"stainless steel", 0}, {"glass", 0.15}}},
           {"chef's knife",
            false,
            45,
            {"{} inch", {6, 8, 10}, 8, 0.7},
            {{"stainless steel", 0}, {"carbon steel", 0.25}, {"Damascus steel", 0.7}}},
           {"dinner plate",
            false,
            9,
            {"{} inch", {8, 10, 12}, 10, 0.9},
            {{"melamine", -0.4}, {"stoneware", 0}, {"porcelain", 0.3}},
            {1, 4, 6, 8},
            0.85},
           {"cutting board",
            false,
            24,
            {"{} inch", {10, 14, 18, 24}, 14, 0.9},
            {{"plastic", -0.45}, {"bamboo", 0}, {"walnut", 0.6}}}}};
}

Category Furniture() {
  return {
      "Furniture",
      HomeBrands(),
      HouseModels(),
      true,
      "Color",
      HomeColors(),
      {"fit~s small rooms", "go~es together in under an hour", "bring~s a calm look to a room",
       "hold~s up to years of use", "stay~s steady on any floor"},
      {"Assembly tools included.", "Some assembly needed.", "Felt pads included."},
      {{"office chair", false, 150, {}, {{"mesh", 0}, {"faux leather", 0.12}, {"leather", 0.6}}},
       {"bookcase", false, 95, {"{} inch", {36, 48, 60, 72}, 60, 0.8}, Woods()},
       {"coffee table", false, 130, {"{} inch", {32, 40, 48}, 40, 0.8}, Woods()},
       {"sofa",
        false,
        400,
        {"{} seat", {2, 3, 4}, 3, 0.7},
        {{"polyester", -0.2}, {"linen", 0}, {"velvet", 0.2}, {"leather", 0.6}}}}};
}

Category Bedding() {
  return {"Bedding & Bath",
          HomeBrands(),
          HouseModels(),
          false,
          "Color",
          HomeColors(),
          {"get~s softer with every wash", "stay~s cool through the night",
           "need~s little time to dry", "keep~s its shape", "feel~s gentle on the skin"},
          {"Machine wash warm.", "Tumble dry low.", "Wash before first use."},
          {{"bed sheet set",
            false,
            42,
            {"{} thread count", {200, 300, 400, 600, 800}, 300, 0.6},
            {{"microfiber", -0.45}, {"cotton", 0}, {"bamboo", 0.25}, {"linen", 0.6}}},
           {"bath towel",
            false,
            11,
            {"{} GSM", {400, 500, 600, 800}, 500, 0.7},
            {{"cotton", 0}, {"bamboo", 0.2}, {"Turkish cotton", 0.35}},
            {1, 2, 4, 6},
            0.85},
           {"comforter",
            false,
            62,
            {},
            {{"polyester", -0.35}, {"cotton", 0}, {"wool", 0.4}, {"goose down", 0.8}}},
           {"pillow",
            false,
            22,
            {},
            {{"polyester", -0.4}, {"memory foam", 0}, {"latex", 0.3}, {"goose down", 0.6}},
            {1, 2, 4},
            0.85}}};
}

Category Audio() {
  return {"Audio & Headphones",
          TechnicalBrands(),
          TechnicalModels(),
          true,
          "Color",
          TechColors(),
          {"deliver~s clear sound with deep bass", "pair~s in seconds", "block~s out city noise",
           "sound~s full at any volume", "connect~s to phone and laptop at once"},
          {"USB-C cable included.", "Works with iOS and Android.", "One year warranty."},
          {{"wireless headphones", true, 85, {"{} hour battery", {15, 24, 40, 60}, 24, 0.3}, {}},
           {"wireless earbuds", true, 48, {"{} hour battery", {5, 8, 12, 15}, 8, 0.35}, {}},
           {"bluetooth speaker", false, 55, {"{} W", {5, 10, 20, 40, 80}, 20, 0.6}, {}},
           {"soundbar", false, 150, {"{} W", {60, 120, 240, 400}, 120, 0.5}, {}}}};
}

Category Computers() {
  return {"Computers & Accessories",
          TechnicalBrands(),
          TechnicalModels(),
          true,
          "Color",
          TechColors(),
          {"run~s cool and quiet", "set~s up in minutes", "keep~s pace with heavy work",
           "travel~s well in any bag", "work~s with Windows and Mac"},
          {"Cable included.", "Two year warranty.", "Ships in recycled packaging."},
          {{"portable SSD", false, 85, {"{} GB", {250, 500, 1000, 2000, 4000}, 1000, 0.75}, {}},
           {"microSD card",
            false,
            17,
            {"{} GB", {32, 64, 128, 256, 512}, 128, 0.65},
            {},
            {1, 2, 3},
            0.85},
           {"monitor", false, 190, {"{} inch", {22, 24, 27, 32}, 27, 1.6}, {}},
           {"laptop", false, 600, {"{} GB RAM", {8, 16, 32}, 16, 0.45}, {}},
           {"USB-C charger", false, 24, {"{} W", {20, 30, 65, 100}, 30, 0.6}, {}, {1, 2}, 0.85}}};
}

Category Clothing() {
  return {"Clothing",
          FashionBrands(),
          HouseModels(),
          false,
          "Color",
          FashionColors(),
          {"fit~s true to size", "hold~s shape after washing", "layer~s well in every season",
           "feel~s soft all day", "pair~s with jeans or chinos"},
          {"Regular fit.", "Imported.", "Wash with like colors."},
          {{"t-shirt",
            false,
            14,
            {},
            {{"polyester", -0.25}, {"cotton", 0}, {"organic cotton", 0.2}, {"merino wool", 0.9}},
            {1, 2, 3, 5},
            0.8},
           {"sweater",
            false,
            48,
            {},
            {{"acrylic", -0.4}, {"cotton", 0}, {"wool", 0.3}, {"cashmere", 1.0}}},
           {"jacket",
            false,
            85,
            {},
            {{"polyester", -0.25}, {"denim", 0}, {"wool", 0.35}, {"leather", 0.9}}},
           {"crew socks",
            true,
            4,
            {},
            {{"polyester", -0.2}, {"cotton", 0}, {"merino wool", 0.8}},
            {1, 3, 6, 10},
            0.75}}};
}

Category Shoes() {
  return {"Shoes & Bags",
          FashionBrands(),
          HouseModels(),
          true,
          "Color",
          FashionColors(),
          {"stay~s comfortable for hours", "hold~s up on long walks", "break~s in quickly",
           "shrug~s off light rain", "go~es from desk to dinner"},
          {"Dust bag included.", "Wipe clean with a damp cloth.", "Spot clean only."},
          {{"sneakers",
            true,
            60,
            {},
            {{"canvas", -0.25}, {"mesh", 0}, {"suede", 0.25}, {"leather", 0.45}}},
           {"ankle boots", true, 85, {}, {{"faux leather", -0.35}, {"suede", 0}, {"leather", 0.3}}},
           {"backpack",
            false,
            46,
            {"{} L", {15, 20, 30, 45}, 20, 0.5},
            {{"polyester", -0.15}, {"nylon", 0}, {"canvas", 0.15}, {"leather", 0.9}}},
           {"tote bag", false, 28, {}, {{"cotton", -0.25}, {"canvas", 0}, {"leather", 1.1}}}}};
}

Category Jewelry() {
  return {"Jewelry & Watches",
          FashionBrands(),
          HouseModels(),
          true,
          "Style",
          {"classic", "minimal", "vintage", "modern", "twisted", "engraved"},
          {"catch~es the light without shouting", "make~s an easy gift", "go~es with everything",
           "come~s ready to wear", "sit~s lightly on the skin"},
          {"Gift box included.", "Polish with a soft cloth.", "Hypoallergenic."},
          {{"stud earrings", true, 38, {}, Metals()},
           {"chain necklace", false, 55, {"{} inch", {16, 18, 20, 24}, 18, 0.9}, Metals()},
           {"bracelet", false, 45, {"{} inch", {6, 7, 8}, 7, 0.9}, Metals()},
           {"wrist watch",
            false,
            115,
            {"{} mm", {34, 38, 42}, 38, 0.6},
            {{"nylon", -0.3}, {"leather", 0}, {"stainless steel", 0.3}, {"titanium", 0.7}}}}};
}

Category Tools() {
  return {"Tools & Hardware",
          TechnicalBrands(),
          TechnicalModels(),
          true,
          "Color",
          ToolColors(),
          {"handle~s tough jobs", "sit~s well in the hand", "cut~s down on set-up time",
           "work~s in tight corners", "stay~s accurate for years"},
          {"Carrying case included.", "Three year warranty.", "Wear eye protection."},
          {{"cordless drill", false, 85, {"{} V", {8, 12, 18, 24}, 18, 0.8}, {}},
           {"screwdriver set", false, 22, {"{} piece", {6, 10, 20, 40}, 10, 0.5}, {}},
           {"circular saw", false, 110, {"{} amp", {8, 10, 13, 15}, 13, 0.8}, {}},
           {"adjustable wrench",
            false,
            15,
            {"{} inch", {6, 8, 10, 12, 15}, 10, 1.0},
            {{"carbon steel", -0.2}, {"chrome vanadium", 0}, {"titanium", 0.8}}}}};
}

Category Garden() {
  return {"Patio & Garden",
          HomeBrands(),
          HouseModels(),
          false,
          "Color",
          {"green", "black", "terracotta", "grey", "white", "blue"},
          {"hold~s up in sun and rain", "store~s flat in winter", "fit~s any backyard",
           "look~s good on any patio", "resist~s rust and fading"},
          {"For outdoor use.", "Store dry in winter.", "Hardware included."},
          {{"garden hose",
            false,
            32,
            {"{} ft", {25, 50, 75, 100}, 50, 0.75},
            {{"vinyl", -0.35}, {"rubber", 0}, {"stainless steel", 0.35}}},
           {"patio umbrella", false, 75, {"{} ft", {6, 7.5, 9, 11}, 9, 1.2}, {}},
           {"planter pot",
            false,
            18,
            {"{} inch", {6, 10, 14, 18}, 10, 1.1},
            {{"plastic", -0.5}, {"terracotta", 0}, {"ceramic", 0.35}, {"concrete", 0.5}},
            {1, 2, 3},
            0.85},
           {"LED string lights", true, 19, {"{} ft", {20, 33, 50, 100}, 33, 0.6}, {}},
           {"gas grill", false, 310, {"{} burner", {2, 3, 4, 6}, 3, 0.8}, {}}}};
}

Category Beauty() {
  return {"Beauty & Personal Care",
          FashionBrands(),
          HouseModels(),
          false,
          "Scent",
          {"lavender", "unscented", "citrus", "aloe", "rose", "sandalwood", "green tea"},
          {"feel~s light on the skin", "last~s all day", "leave~s a clean feel",
           "suit~s every skin type", "work~s without parabens"},
          {"Cruelty free.", "For external use only.", "Tested by dermatologists."},
          {{"face moisturizer", false, 18, {"{} oz", {1, 1.7, 2.5, 4}, 1.7, 0.6}, {}},
           {"shampoo", false, 9, {"{} oz", {8, 12, 16, 32}, 12, 0.65}, {}, {1, 2, 3}, 0.85},
           {"perfume", false, 52, {"{} oz", {0.5, 1, 1.7, 3.4}, 1.7, 0.6}, {}},
           {"bar soap", false, 3.4, {"{} oz", {3.5, 4, 5, 7}, 4, 0.7}, {}, {1, 3, 6, 12}, 0.8}}};
}

Category Sports() {
  return {
      "Sports & Outdoors",
      TechnicalBrands(),
      TechnicalModels(),
      true,
      "Color",
      FashionColors(),
      {"take~s years of hard use", "stay~s easy to carry", "suit~s beginners and experts",
       "store~s in small spaces", "hold~s up in any season"},
      {"Carry strap included.", "Wipe clean.", "One year warranty."},
      {{"yoga mat",
        false,
        27,
        {"{} mm", {4, 6, 8, 10}, 6, 0.4},
        {{"PVC", -0.3}, {"TPE", 0}, {"cork", 0.45}, {"natural rubber", 0.6}}},
       {"dumbbell",
        false,
        17,
        {"{} lb", {5, 10, 20, 35, 50}, 10, 0.85},
        {{"vinyl", -0.2}, {"cast iron", 0}, {"rubber", 0.2}, {"chrome", 0.45}},
        {1, 2},
        0.9},
       {"sleeping bag", false, 72, {}, {{"polyester", -0.3}, {"nylon", 0}, {"goose down", 0.9}}},
       {"camping tent", false, 130, {"{} person", {1, 2, 4, 6, 8}, 4, 0.7}, {}},
       {"water bottle",
        false,
        18,
        {"{} oz", {12, 20, 32, 40, 64}, 20, 0.45},
        {{"plastic", -0.6}, {"stainless steel", 0}, {"titanium", 0.9}}}}};
}

Category Toys() {
  return {"Toys & Games",
          FamilyBrands(),
          HouseModels(),
          true,
          "Color",
          PlayColors(),
          {"keep~s kids busy for hours", "spark~s imagination", "make~s rainy days fun",
           "bring~s the family together", "last~s through rough play"},
          {"Ages 6 and up.", "Ages 3 and up.", "No batteries needed."},
          {{"building set", false, 30, {"{} piece", {100, 250, 500, 1000, 2000}, 500, 0.75}, {}},
           {"jigsaw puzzle",
            false,
            16,
            {"{} piece", {100, 300, 500, 1000, 2000}, 500, 0.35},
            {{"cardboard", 0}, {"wood", 0.65}}},
           {"plush bear", false, 17, {"{} inch", {8, 12, 18, 24, 36}, 12, 0.9}, {}},
           {"board game", false, 28, {"{} player", {2, 4, 6, 8}, 4, 0.3}, {}}}};
}

Category Pets() {
  const Strings flavors = {"chicken", "beef", "salmon", "lamb", "turkey"};
  return {"Pet Supplies",
          FamilyBrands(),
          HouseModels(),
          false,
          "Color",
          PlayColors(),
          {"keep~s pets happy", "win~s over picky pets", "suit~s all breeds",
           "make~s daily care easy", "get~s approval from vets"},
          {"Made for indoor pets.", "Loved by rescue shelters.", "Suits small homes."},
          {{"dry dog food",
            false,
            22,
            {"{} lb", {4, 8, 15, 30}, 8, 0.75},
            {},
            {1, 2},
            0.9,
            flavors,
            "Flavor"},
           {"cat litter", false, 15, {"{} lb", {10, 20, 30, 40}, 20, 0.75}, {}},
           {"dog bed",
            false,
            36,
            {"{} inch", {24, 30, 36, 42}, 30, 1.2},
            {{"polyester", 0}, {"memory foam", 0.5}}},
           {"cat tree", false, 70, {"{} inch", {32, 48, 60, 72}, 48, 0.9}, {}},
           {"dog chew toy",
            false,
            6,
            {},
            {{"rope", -0.2}, {"nylon", 0}, {"rubber", 0.25}},
            {1, 3, 5, 10},
            0.75}}};
}

Category Grocery() {
  return {"Grocery & Gourmet",
          FamilyBrands(),
          HouseModels(),
          false,
          "Variety",
          {"original", "organic farm", "family recipe", "stone ground", "sea salt"},
          {"taste~s rich and smooth", "come~s from small farms", "arrive~s fresh and sealed",
           "make~s a good breakfast", "balance~s sweet and bitter"},
          {"Store in a cool, dry place.", "No artificial flavors.", "Best within a year."},
          {{"ground coffee",
            false,
            9,
            {"{} oz", {10, 12, 20, 32}, 12, 0.8},
            {},
            {1, 2, 3, 6},
            0.9,
            {"house blend", "French roast", "breakfast blend", "espresso roast", "decaf"}},
           {"olive oil",
            false,
            12,
            {"{} oz", {8.5, 17, 25, 34}, 17, 0.75},
            {},
            {1, 2, 4},
            0.9,
            {"robust", "mild", "peppery", "lemon"}},
           {"herbal tea",
            false,
            5,
            {"{} bags", {16, 20, 40, 80}, 20, 0.7},
            {},
            {1, 3, 6},
            0.9,
            {"chamomile", "peppermint", "ginger", "hibiscus", "rooibos"}},
           {"dark chocolate bar",
            false,
            3.6,
            {"{} oz", {1.5, 2.8, 3.5}, 2.8, 0.7},
            {},
            {1, 4, 6, 12},
            0.88,
            {"sea salt", "almond", "orange", "mint", "plain"}}}};
}

}  // namespace

const std::vector<Category>& SyntheticCategories() {
  static const auto& categories = *new std::vector<Category>{
      Kitchen(), Furniture(), Bedding(), Audio(),  Computers(), Clothing(), Shoes(),  Jewelry(),
      Tools(),   Garden(),    Beauty(),  Sports(), Toys(),      Pets(),     Grocery()};
  return categories;
}

const std::vector<Condition>& SyntheticConditions() {
  static const auto& conditions = *new std::vector<Condition>{
      {"new", 0, {}, "new", {}},
      {"refurbished",
       -0.3,
       {"Refurbished", "Certified Refurbished"},
       "refurbished",
       {"Refurbished, tested and cleaned.", "Refurbished and in full working order."}},
      {"used",
       -0.6,
       {"Used", "Used, Good"},
       "used",
       {"Used, with light signs of wear.", "Used but in good shape."}}};
  return conditions;
}

}  // namespace pricer
