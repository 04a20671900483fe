#include "catalog/median.h"

#include <algorithm>

#include "base/check.h"

namespace pricer {

double Median(std::vector<double> values) {
  PRICER_CHECK(!values.empty());
  const auto middle = values.begin() + values.size() / 2;
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

}  // namespace pricer
