// npm packages that only the benchmark needs.
import { packages as packagesIn } from '../helpers/packages.ts'

/** Exact, so that figures of two days compare. */
export const versions = { autocannon: '9.0.0', express: '5.3.0', 'http-proxy-middleware': '4.2.1' }

/** The folder with the packages in it; installs them when they are missing. */
export const packages = (): Promise<string> => packagesIn('bench-subjects', versions)
