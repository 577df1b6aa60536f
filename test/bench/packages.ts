// npm packages that only the benchmark needs.
import { packages as packagesIn } from '../helpers/packages.ts'

/** Exact versions, so that results of two days compare. */
export const versions = { autocannon: '9.0.0', express: '5.3.0', 'http-proxy-middleware': '4.2.1' }

/** Returns the folder with the packages, and installs them if they are missing. */
export const packages = (): Promise<string> => packagesIn('bench-subjects', versions)
