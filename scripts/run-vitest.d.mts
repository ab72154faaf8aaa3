export interface Counts {
  passed: number
  failed: number
  skipped: number
}
export interface Report {
  readonly testResults: readonly {
    readonly status: string
    readonly assertionResults: readonly { readonly status: string }[]
  }[]
}
export function runVitest(
  vitestArguments: readonly string[],
  options?: { readonly node?: string; readonly environment?: Readonly<Record<string, string>> },
): Promise<Counts>
/** From vitest's JSON report and its exit status. */
export function countReport(report: Report | undefined, status: number | null): Counts
/** The line that ends a run of tests. */
export function summaryLine(counts: Counts): string
