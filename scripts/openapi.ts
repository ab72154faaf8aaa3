/** Writes docs/openapi.json anew from the routes: `npx tsx scripts/openapi.ts`. */

import { writeFileSync } from 'node:fs'
import { API_DESCRIPTION_FILE, apiDescription } from '../test/support/api-description.ts'

writeFileSync(API_DESCRIPTION_FILE, await apiDescription())
