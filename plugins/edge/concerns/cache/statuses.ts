/** Statuses of responses, and what they mean for storing. */

/**
 * Statuses that are never stored, whatever the response says. 304 has no body. The others depend on a single request or client:
 * on its size, conditions, credentials or rate. Most of what causes them is no part of the key, so that one client could cause
 * them for all others.
 */
export const neverStored: ReadonlySet<number> = new Set([
  304, 400, 401, 406, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 426, 428, 429, 431
])

/** Statuses that `must-understand` allows to store. */
export const understood: ReadonlySet<number> = new Set([
  200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 451, 501
])

/** Statuses that a cache may store without an explicit time (RFC 9110, 15.1). */
export const heuristicallyFresh: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
