#include "base/file_descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <utility>

namespace pricer {
namespace {

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) != -1; }

FileDescriptor OpenNull() { return FileDescriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

TEST(FileDescriptorTest, ClosesOnDestruction) {
  int fd;
  {
    const FileDescriptor file = OpenNull();
    ASSERT_TRUE(file.ok());
    fd = file.get();
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
}

TEST(FileDescriptorTest, MovesOwnership) {
  FileDescriptor first = OpenNull();
  const int fd = first.get();
  FileDescriptor second = std::move(first);
  EXPECT_FALSE(first.ok());  // NOLINT(bugprone-use-after-move): what the test is about
  EXPECT_EQ(second.get(), fd);
  FileDescriptor third;
  third = std::move(second);
  EXPECT_EQ(third.get(), fd);
  EXPECT_TRUE(IsOpen(fd));
}

TEST(FileDescriptorTest, CloseReportsErrorsAndIsANoOpTheSecondTime) {
  FileDescriptor file = OpenNull();
  EXPECT_TRUE(file.Close());
  EXPECT_TRUE(file.Close());
  FileDescriptor wrong(1 << 20);
  EXPECT_FALSE(wrong.Close());
  EXPECT_EQ(errno, EBADF);
}

}  // namespace
}  // namespace pricer
