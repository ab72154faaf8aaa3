export interface Counts {
  passed: number
  failed: number
  skipped: number
}
export interface FileReport {
  readonly name?: string
  readonly status: string
  readonly message?: string
  readonly assertionResults: readonly { readonly status: string; readonly failureMessages?: readonly string[] }[]
}
export interface Report {
  readonly testResults: readonly FileReport[]
}
export function runVitest(
  vitestArguments: readonly string[],
  options?: { readonly node?: string; readonly environment?: Readonly<Record<string, string>> },
): Promise<Counts>
/** From vitest's JSON report and its exit status. */
export function countReport(report: Report | undefined, status: number | null): Counts
/** Names of the files in which every failure is a wait that ran out of time. */
export function filesOutOfTime(report: Report | undefined): readonly string[]
/** The first report, in which the files that were run again count as they ended then. */
export function withSecondRun(first: Report, second: Report | undefined): Report
/** The line that ends a run of tests. */
export function summaryLine(counts: Counts): string
