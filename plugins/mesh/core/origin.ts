import type { ServiceOrigin } from '../../seam.ts'

/** The virtual origin under which callers name a service. */
export function originOf(service: string): ServiceOrigin {
  return `http://${service}.mesh`
}

/** The name of the service that an origin names; the origin itself where it is none of a service. */
export function nameOf(origin: string): string {
  return /^http:\/\/(.*)\.mesh$/.exec(origin)?.[1] ?? origin
}
