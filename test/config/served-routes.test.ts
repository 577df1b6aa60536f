// slow: takes about 26 s
import { testSections } from './served.ts'

testSections(['services', 'routes'])
