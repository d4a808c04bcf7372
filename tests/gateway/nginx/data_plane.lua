-- How Kong's data plane connects, call by call: connect, setclientcert, sslhandshake with a check of chain and name,
-- then the request of a WebSocket. Answers `data-plane REASON` or `control-plane STATUS`.
local ssl = require "ngx.ssl"

local function read(name)
  local file = assert(io.open(ngx.config.prefix() .. name))
  local text = file:read("*a")
  file:close()
  return text
end

local certificate = assert(ssl.parse_pem_cert(read("data-plane.crt")))
local key = assert(ssl.parse_pem_priv_key(read("data-plane.key")))
local socket = ngx.socket.tcp()
socket:settimeout(5000)
assert(socket:connect("unix:" .. ngx.config.prefix() .. "cluster.sock"))
assert(socket:setclientcert(certificate, key))
local ok, reason = socket:sslhandshake(false, ngx.var.arg_server_name, true)
if not ok then
  return ngx.say("data-plane ", reason)
end

assert(socket:send("GET /v1/outlet?node_id=8f6a3f0e-5c1f-4c0e-9f0b-2f6f1b1f0a11&node_hostname=dp&node_version=3.9.3"
  .. " HTTP/1.1\r\nUpgrade: websocket\r\nHost: " .. ngx.var.arg_server_name .. ":8005\r\n"
  .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade\r\n\r\n"))
local line, failure = socket:receive()
if line then
  ngx.say("control-plane ", line:match("^HTTP/1%.1 (%d%d%d) "))
elseif failure == "closed" then
  -- nginx's own number for a connection that is closed without an answer.
  ngx.say("control-plane 444")
else
  error("the control plane's answer: " .. failure)
end
