import t from 'tap'
import { parseDuration, parsePercent, parseSize } from '../../config/units.ts'

const tables = {
  duration: {
    parse: parseDuration,
    good: {
      '250ms': 250,
      '15s': 15_000,
      '1.5s': 1500,
      '1.1s': 1100,
      '5m': 300_000,
      '1h': 3_600_000,
      '1d': 86_400_000,
      '0s': 0
    },
    bad: ['', '15', 's', '-1s', '1 s', '1S', '1M', '1w', '1s2ms', ' 1s', '.5s', '1.s', '1e3s', '99999999999999999d']
  },
  size: {
    parse: parseSize,
    good: { '512b': 512, '16kb': 16_384, '0.5kb': 512, '10mb': 10_485_760, '10MB': 10_485_760, '1gb': 1_073_741_824 },
    bad: ['', '10', 'mb', '-1kb', '10 mb', '10k', '10kib', '1tb']
  },
  percent: {
    parse: parsePercent,
    good: { '20%': 0.2, '0.5%': 0.005, '100%': 1, '0%': 0 },
    bad: ['', '20', '%', '-1%', '20 %', '0,5%']
  }
}

for (const [unit, { parse, good, bad }] of Object.entries(tables)) {
  t.test(`a ${unit} is parsed, and malformed text is refused`, async (t) => {
    for (const [text, value] of Object.entries(good)) t.equal(parse(text), value, text)
    for (const text of bad) t.equal(parse(text), null, `${JSON.stringify(text)} is malformed`)
  })
}
