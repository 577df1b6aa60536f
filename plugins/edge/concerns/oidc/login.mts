/** The code of logins, which the first route with `oidc` loads; `.mts` for the reason in plugins/mesh-half.mts. */
export { Logins } from './route.ts'
