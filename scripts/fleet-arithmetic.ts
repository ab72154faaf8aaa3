/** Writes the table of a fleet's records in docs/operating.md anew: `npx tsx scripts/fleet-arithmetic.ts`. */

import { readFileSync, writeFileSync } from 'node:fs'
import { fleetTable } from '../test/ownership/fleet-arithmetic.ts'

const PAGE = new URL('../docs/operating.md', import.meta.url)
const MARKED = /(<!-- fleet:begin -->\n\n)[\s\S]*?(\n\n<!-- fleet:end -->)/u

const page = readFileSync(PAGE, 'utf8')
if (!MARKED.test(page)) throw new Error('docs/operating.md has no place for the table')
writeFileSync(
  PAGE,
  page.replace(MARKED, (_whole, begin: string, end: string) => `${begin}${fleetTable()}${end}`),
)
