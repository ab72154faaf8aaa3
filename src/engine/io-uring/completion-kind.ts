/** What a completion belongs to: the upper half of its user_data. The lower half is a row of the table concerned. */

export const COMPLETION = {
  disk: 1,
  receive: 2,
  send: 3,
  doorbell: 4,
  cancel: 5,
  fileReleased: 6,
} as const
