#!/usr/bin/env node
'use strict'

/**
 * Starts the control program. It exists beside its ES module so that both programs are found, and fail, in the same way.
 */

import('../dist/cli/interlockctl.js')
