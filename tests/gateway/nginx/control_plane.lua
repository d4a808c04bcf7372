-- What Kong's control plane does with a request for /v1/outlet before anything else: in shared mode the data plane's
-- certificate has to be its own, by SHA-256 of the DER; in pki mode nginx has checked it already.
local ffi = require "ffi"
local ssl = require "ngx.ssl"

pcall(ffi.cdef, "unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);")

local function digest(pem)
  local der = assert(ssl.cert_pem_to_der(pem))
  local out = ffi.new("unsigned char[32]")
  ffi.C.SHA256(der, #der, out)
  return ffi.string(out, 32)
end

if ngx.var.cluster_mtls == "shared" then
  local file = assert(io.open(ngx.config.prefix() .. "control-plane.crt"))
  local own = file:read("*a")
  file:close()
  local peer = ngx.var.ssl_client_raw_cert
  if not peer or digest(peer) ~= digest(own) then
    return ngx.exit(ngx.HTTP_CLOSE)
  end
end

-- Kong upgrades the connection to a WebSocket here; that it would is all that is asked.
ngx.say("accepted")
