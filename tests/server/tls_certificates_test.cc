#include "server/tls_certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "tests/testing/certificates.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using testing::CertificateAndKey;
using testing::CertificateAuthority;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Not;
using testing::StatusIs;
using testing::TempDir;

class TlsCertificatesTest : public ::testing::Test {
 protected:
  TlsCertificatesTest() {
    Write(files_.client_ca, authority_.certificate());
    Write(files_.certificate, first_.certificate + authority_.certificate());
    Write(files_.key, first_.key);
  }
  static void Write(const std::string& path, const std::string& text) {
    ASSERT_OK(WriteFile(path, text));
  }
  void ExpectBad(const std::string& path, const std::string& words) {
    EXPECT_THAT(ReadTlsFiles(files_),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(path), HasSubstr(words), Not(HasSubstr("BEGIN")))));
  }

  const TempDir dir_;
  const TlsFiles files_ = {dir_.File("server.crt"), dir_.File("server.key"),
                           dir_.File("clients.crt")};
  const CertificateAuthority authority_{"an authority"};
  const CertificateAndKey first_ = authority_.Issue("first");
  const CertificateAndKey second_ = authority_.Issue("second");
};

TEST_F(TlsCertificatesTest, ReadsAPairWithItsChain) {
  ASSERT_OK_AND_ASSIGN(const TlsMaterial material, ReadTlsFiles(files_));
  EXPECT_EQ(material.certificate, first_.certificate + authority_.certificate());
  EXPECT_EQ(material.key, first_.key);
  EXPECT_EQ(material.client_ca, authority_.certificate());
}

TEST_F(TlsCertificatesTest, ExpiresWithTheFirstOfTheChain) {
  const absl::Time now = absl::Now();
  const auto expires_in = [&](const std::string& chain, absl::Duration expected) {
    Write(files_.certificate, chain);
    ASSERT_OK_AND_ASSIGN(const TlsMaterial material, ReadTlsFiles(files_));
    EXPECT_THAT(absl::ToInt64Seconds(material.expires - now - expected), AllOf(Ge(-60), Le(60)));
  };
  const CertificateAndKey longer = authority_.Issue("longer", /*days=*/40);
  const CertificateAndKey over = authority_.Issue("over", /*days=*/0);
  Write(files_.key, longer.key);
  expires_in(longer.certificate, absl::Hours(40 * 24));
  expires_in(longer.certificate + authority_.certificate(), absl::Hours(24));
  Write(files_.key, over.key);
  expires_in(over.certificate + authority_.certificate(), absl::ZeroDuration());
}

TEST_F(TlsCertificatesTest, NamesTheFileThatIsWrong) {
  Write(files_.key, second_.key);
  ExpectBad(files_.key, files_.certificate);
  Write(files_.key, "");
  ExpectBad(files_.key, "private key");
  Write(files_.key, first_.certificate);
  ExpectBad(files_.key, "private key");
  Write(files_.key, first_.key);
  Write(files_.certificate, first_.key);
  ExpectBad(files_.certificate, "certificates in PEM");
  Write(files_.certificate, first_.certificate + first_.certificate.substr(0, 200) + "\n" +
                                "-----END CERTIFICATE-----\n");
  ExpectBad(files_.certificate, "nothing but certificates");
  Write(files_.certificate, first_.certificate);
  Write(files_.client_ca, "nobody");
  ExpectBad(files_.client_ca, "certificates in PEM");
  std::filesystem::remove(files_.client_ca);
  EXPECT_THAT(ReadTlsFiles(files_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(files_.client_ca)));
}

TEST_F(TlsCertificatesTest, TheKeeperNeverGivesOneHalfOfAPair) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<CertificateKeeper> keeper,
                       CertificateKeeper::Open(files_));
  const std::shared_ptr<const TlsMaterial> before = keeper->current();
  keeper->Poll();
  EXPECT_EQ(keeper->current(), before);
  Write(files_.certificate, second_.certificate);
  keeper->Poll();
  EXPECT_EQ(keeper->current(), before);
  Write(files_.key, second_.key);
  keeper->Poll();
  EXPECT_EQ(keeper->current()->certificate, second_.certificate);
  EXPECT_EQ(keeper->current()->key, second_.key);
  std::filesystem::remove(files_.key);
  keeper->Poll();
  EXPECT_EQ(keeper->current()->key, second_.key);
}

}  // namespace
}  // namespace pricer
