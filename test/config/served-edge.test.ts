// slow: takes about 16 s
import { testSections } from './served.ts'

testSections(['listen', 'admin', 'redis', 'edge'])
