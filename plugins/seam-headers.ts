/** Headers by which the halves of a gateway speak, where they are two processes: those of the seam's options and errors. */

/** Names the call of the configuration: `route/orders`, `route/home/user` for a call of `compose`, `service/orders`. */
export const callHeader = 'x-jingwei-call'

/** The caller, as a query string: `ip=192.0.2.1&consumer=alice`. */
export const callerHeader = 'x-jingwei-caller'

/** The error of the mesh for which the sidecar makes a response, as a query string: `code=JW_NO_INSTANCE`. */
export const errorHeader = 'x-jingwei-error'
