#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/tls_certificates.h"

namespace pricer {

// TLS with what `keeper` holds when a connection is made: connections that are there go on with
// theirs. Clients must show a certificate where it has an authority for them. `keeper` must outlive
// the credentials, and they the servers that they are given to.
std::shared_ptr<grpc::ServerCredentials> ReloadingCredentials(const CertificateKeeper* keeper);

}  // namespace pricer
