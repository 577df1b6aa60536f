/**
 * Place of the files of the program. The build merges modules into chunks, all in `dist/plugins`; this file is in `plugins`,
 * too, so that the folder above is right for both. Other modules do not use their own place, which a build changes.
 */
import { dirname, join } from 'node:path'

/** Folder of the program: the checkout, or `dist`. */
export const home = dirname(import.meta.dirname)

/** True for built code, false in a checkout. */
export const isBuilt = import.meta.filename.endsWith('.js')

/** Returns the absolute path of a module that the build keeps as a file of its own; `source` is relative to `home`. */
export const moduleFile = (source: string): string => join(home, isBuilt ? source.replace(/\.m?ts$/, '.js') : source)
