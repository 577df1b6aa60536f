// slow: starts a gateway for each value
import { credentials, testSections, tokens } from './served.ts'

testSections(['edge'], (path) => credentials.test(path) && !tokens.test(path))
