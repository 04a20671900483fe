#pragma once

namespace pricer {

// From here on the calling thread, and those that it starts, run where others leave time: a nice
// value of 10 more, a tenth of another thread's share of a core that both want. Not less, since a
// thread that is held up holds its locks for longer. A system that does not allow it changes
// nothing.
void LowerThreadPriority();

}  // namespace pricer
