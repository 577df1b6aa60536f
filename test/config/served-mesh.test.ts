// slow: takes about 28 s
import { testSections } from './served.ts'

testSections(['discovery', 'mesh'])
