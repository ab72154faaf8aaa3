/** Placeholder for the types other files need first; the tables follow. */
export type ExportState = 'standby' | 'opening' | 'open' | 'closing' | 'closed' | 'fenced'
export type XenbusState = 2 | 3 | 4 | 5 | 6
