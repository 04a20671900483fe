#include "catalog/item.h"

namespace pricer {

std::string ItemText(const Item& item) {
  if (!item.text.empty()) return item.text;
  std::string text;
  text.reserve(item.title.size() + item.brand.size() + item.category.size() +
               item.description.size() + item.details.size() + 4);
  for (const std::string* field :
       {&item.title, &item.brand, &item.category, &item.description, &item.details}) {
    if (field->empty()) continue;
    if (!text.empty()) text += '\n';
    text += *field;
  }
  return text;
}

}  // namespace pricer
