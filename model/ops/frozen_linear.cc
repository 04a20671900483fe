#include "model/ops/frozen_linear.h"

namespace pricer {

const PackedMatrix& FrozenLinear::straight() const {
  std::call_once(once_, [this] { straight_ = PackedMatrix(transposed_.Unpack().t()); });
  return straight_;
}

}  // namespace pricer
