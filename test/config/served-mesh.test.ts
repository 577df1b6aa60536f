import { testSections } from './served.ts'

testSections(['discovery', 'mesh'])
