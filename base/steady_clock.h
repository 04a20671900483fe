#pragma once

#include "base/clock.h"

namespace pricer {

// A clock that nobody sets: it begins as the machine's at the first call and moves on evenly from
// there. For what is measured and waited for; what is shown or written down is of Clock::System().
// Lives for ever.
const Clock* SteadyClock();

}  // namespace pricer
