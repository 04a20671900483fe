#pragma once

#include <vector>

namespace pricer {

// Middle value, or the mean of the two in the middle. `values` is not empty.
double Median(std::vector<double> values);

}  // namespace pricer
