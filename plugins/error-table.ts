/** The error table: status, message and error type for each error code. */
import type { SeamErrorCode } from './seam.ts'

/** A row: the status, the message for the client, and the error type of RFC 9209 (Proxy-Status), section 2.3. */
export type Row = readonly [status: number, message: string, type: string, retryAfterSeconds?: number]

/** Rows by code: of the mesh, for which the compiler checks that none is missing, and of the edge. */
export const errorTable: Readonly<Record<SeamErrorCode, Row> & Record<string, Row>> = {
  JW_MAINTENANCE: [503, 'The service is under maintenance', 'destination_unavailable'],
  JW_REDIRECT_LOOP: [508, 'The redirect leads to the URL of the request itself', 'proxy_configuration_error'],
  JW_NO_SERVICE: [503, 'The service is not configured', 'destination_not_found'],
  JW_NO_INSTANCE: [503, 'No instance of the service is available', 'destination_unavailable', 1],
  JW_NOT_READY: [503, 'Discovery has had no result yet', 'destination_unavailable', 1],
  JW_CIRCUIT_OPEN: [503, 'The service is temporarily unavailable (circuit open)', 'destination_unavailable', 1],
  JW_OVERLOADED: [503, 'The service is at its concurrency limit', 'connection_limit_reached', 1],
  JW_UPSTREAM_LIMITED: [503, 'The rate limit toward the service is reached', 'connection_limit_reached', 1],
  JW_INTENTION_DENIED: [403, 'The gateway may not call the service', 'http_request_denied'],
  JW_CREDENTIALS_UNAVAILABLE: [503, 'The gateway has no credentials for the service', 'proxy_internal_error', 1],
  JW_MESH_CLOSED: [503, 'The gateway is shutting down', 'destination_unavailable', 1],
  JW_CALLER_SILENT: [408, 'The client paused for too long within the request body', 'http_request_error'],
  JW_CALL_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_RESPONSE_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_ATTEMPT_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_UPSTREAM_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_UPSTREAM_CONNECT_TIMEOUT: [504, 'Connecting to the service timed out', 'connection_timeout'],
  JW_UPSTREAM_REFUSED: [502, 'The service refused the connection', 'connection_refused'],
  JW_UPSTREAM_RESET: [
    502,
    'The service closed the connection before its response was complete',
    'connection_terminated'
  ],
  JW_UPSTREAM_UNREACHABLE: [502, 'The service cannot be reached', 'destination_ip_unroutable'],
  JW_UPSTREAM_DNS: [502, "The service's host name cannot be resolved", 'dns_error'],
  JW_UPSTREAM_TLS: [502, 'The TLS handshake with the service failed', 'tls_protocol_error'],
  JW_UPSTREAM_UNTRUSTED: [502, "The service's certificate cannot be verified", 'tls_certificate_error'],
  JW_UPSTREAM_MALFORMED: [502, 'The response of the service is malformed', 'http_protocol_error'],
  JW_UPSTREAM_STATUS: [502, 'A service responded with an error', 'http_protocol_error'],
  JW_UPSTREAM_NOT_JSON: [502, 'The response of a service is not JSON', 'http_protocol_error'],
  JW_UPSTREAM_SHAPE: [502, 'The response of a service has an unexpected shape', 'http_protocol_error'],
  JW_RESPONSE_INVALID: [502, 'The response of the service does not match its description', 'http_protocol_error'],
  JW_RESPONSE_UNCHANGEABLE: [502, 'The response of the service cannot be changed as configured', 'http_protocol_error'],
  JW_UPSTREAM_BODY_TOO_LARGE: [502, 'The response of a service is too large', 'http_response_body_size'],
  JW_UPSTREAM_HEADERS_TOO_LARGE: [
    502,
    'The header section of the response is too large',
    'http_response_header_section_size'
  ],
  JW_INSTANCE_REMOVED: [502, 'The instance was removed from the service', 'connection_terminated'],
  JW_SIGNAL_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_REDIRECT_REFUSED: [502, 'A host responded with a redirect to a service', 'http_protocol_error'],
  JW_BAD_UPGRADE: [502, 'The service switched to a protocol that was not requested', 'http_upgrade_failed'],
  JW_OUT_OF_DESCRIPTORS: [503, 'The gateway is overloaded (file descriptors)', 'proxy_internal_error', 1],
  JW_OUT_OF_MEMORY: [503, 'The gateway is overloaded (memory)', 'proxy_internal_error', 1],
  JW_OUT_OF_PORTS: [503, 'The gateway is overloaded (local ports)', 'proxy_internal_error', 1],
  JW_NOT_CACHED: [504, 'The response is not in the cache, and only-if-cached asks for no other', 'http_request_denied'],
  JW_CLIENT_REQUESTS: [429, 'This client has too many requests in flight', 'http_request_denied', 1],
  JW_AUTH_BUSY: [503, 'Too many credentials are being verified', 'proxy_internal_error', 1],
  JW_BODY_BUSY: [503, 'Too many bodies are in memory', 'proxy_internal_error', 1],
  JW_DECOMPRESSION_BUSY: [503, 'Too many request bodies are being decompressed', 'proxy_internal_error', 1],
  JW_REPLAY_WINDOW_FULL: [503, 'The memory for accepted signatures is full', 'proxy_internal_error', 1],
  JW_SIGNATURES_LIMITED: [429, 'This consumer has sent too many signed requests', 'http_request_denied', 1],
  JW_AUTH_LIMITED: [429, 'Too many failed attempts to authenticate from this address', 'http_request_denied', 60],
  JW_CLIENT_WEBSOCKETS: [429, 'This client has too many WebSockets open', 'http_request_denied', 10],
  JW_CALLER_DENIED: [403, 'The calling service may not call this one', 'http_request_denied'],
  JW_CALLER_UNDECIDED: [503, 'It is not known yet which services may call this one', 'destination_unavailable', 1],
  JW_PLUGIN_FAILED: [500, 'A plugin of the gateway failed', 'proxy_internal_error'],
  JW_CONSUMERS_UNKNOWN: [503, 'The consumers are not known yet', 'proxy_internal_error', 1],
  JW_KEYS_UNAVAILABLE: [503, 'The keys to verify tokens are not available', 'proxy_internal_error', 1],
  JW_AUTH_UNAVAILABLE: [503, 'The server for authorization is unavailable', 'proxy_internal_error', 1],
  JW_OUT_OF_CPU: [503, 'The gateway is overloaded (event loop)', 'proxy_internal_error', 1],
  JW_OUT_OF_CAPACITY: [503, 'The gateway is overloaded (requests in flight)', 'proxy_internal_error', 1],
  JW_BODY_MISMATCH: [400, 'The request body does not match its Content-Length', 'http_request_error'],
  JW_LOOP_DETECTED: [508, 'The request came back to this gateway', 'proxy_loop_detected']
}
