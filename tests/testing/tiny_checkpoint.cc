// Makes a base for tests that are no C++ programs: tiny_checkpoint DIRECTORY

#include <iostream>

#include "tests/testing/tiny_model.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "tiny_checkpoint: expected the directory to make\n";
    return 2;
  }
  const absl::Status status = pricer::testing::WriteTinyCheckpoint(argv[1]);
  if (!status.ok()) std::cerr << "tiny_checkpoint: " << status.message() << '\n';
  return status.ok() ? 0 : 1;
}
