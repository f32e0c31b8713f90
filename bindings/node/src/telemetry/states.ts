// What of a client is read when the host collects its metrics: how it stands, and what its engine counts.

import type { Meter, ObservableResult } from "@opentelemetry/api";

import { SPEND } from "../names";
import type { Spend } from "../types";
import * as names from "./names";
import type { Observer } from "./observer";

/** What stands for names that are one too many. */
export const OTHER = "other";

/** The names that were seen first, up to a number: there is one for all clients of a meter. */
export class Names {
  readonly #most: number;
  readonly #known = new Set<string>();

  constructor(most: number) {
    this.#most = most;
  }

  /** The name, or `other` for one too many; nothing stays nothing. */
  label(name: string): string {
    if (name === "" || this.#known.has(name)) return name;
    if (this.#known.size >= this.#most) return OTHER;
    this.#known.add(name);
    return name;
  }
}

/** How a deployment stands, in the border's names. */
interface State {
  readonly deployment: string;
  readonly circuit?: string;
  readonly waiting?: number;
  readonly in_flight?: number;
}

/** How a canary does, as far as it is of interest here. */
interface Tried {
  readonly deployment: string;
  readonly state: string;
}

/** How copies of calls do, in the border's names. */
interface Copied {
  readonly to: string;
  readonly sent: number;
  readonly errors: number;
  readonly dropped: number;
  readonly in_flight: number;
}

type Fold = (values: readonly number[]) => number;
type Counts = readonly (readonly [labels: string, count: number])[];

const sum: Fold = (values) => values.reduce((total, value) => total + value, 0);
const most: Fold = (values) => Math.max(...values);
const circuit = (state: State): number => names.CIRCUIT_STATES[state.circuit ?? "closed"] ?? 0;

/** Counts of clients, added up. They never go back: what a client has counted stays when it is gone. */
class Totals {
  readonly #read: (observer: Observer) => Counts;
  readonly #seen = new WeakMap<Observer, Map<string, number>>();
  readonly all = new Map<string, number>();

  constructor(read: (observer: Observer) => Counts) {
    this.#read = read;
  }

  /** Adds what a client has counted since the last look. */
  add(observer: Observer): void {
    const seen = this.#seen.get(observer) ?? new Map<string, number>();
    this.#seen.set(observer, seen);
    for (const [labels, count] of this.#read(observer)) {
      const before = seen.get(labels) ?? 0;
      // Parts of a count are read one after the other, and may seem to go back by one.
      const now = Math.max(before, count);
      seen.set(labels, now);
      this.all.set(labels, (this.all.get(labels) ?? 0) + now - before);
    }
  }
}

const every = new Set<WeakRef<States>>();

/** It is about to be closed: every meter that has it reads it for the last time. */
export function leave(observer: Observer): void {
  for (const kept of every) {
    const states = kept.deref();
    if (states === undefined) every.delete(kept);
    else states.leave(observer);
  }
}

/** How the clients of one meter stand. They are held weakly, and one that is closed has no state. */
export class States {
  readonly #deployments: Names;
  readonly #budgetNames: Names;
  readonly #dropped = new Totals(({ engine }) => {
    const dropped = engine.present("dropped") as number | undefined;
    return dropped === undefined ? [] : [["", dropped]];
  });
  readonly #copies = new Totals(({ engine }) => this.#copied(engine.present("mirror") as Copied | null | undefined));
  #watched: WeakRef<Observer>[] = [];

  constructor(meter: Meter, deployments: Names, budgets: Names) {
    this.#deployments = deployments;
    this.#budgetNames = budgets;
    type Read = (result: ObservableResult) => void | Promise<void>;
    const gauge = ({ name, unit, description }: names.Metric, read: Read): void =>
      meter.createObservableGauge(name, { unit, description }).addCallback(read);
    const counter = ({ name, unit, description }: names.Metric, read: Read): void =>
      meter.createObservableCounter(name, { unit, description }).addCallback(read);
    // Clients of their own with a deployment of the same name: their calls add up, circuits do not.
    gauge(names.CIRCUIT_STATE, (result) => this.#states(result, circuit, most, most));
    gauge(names.QUEUE_DEPTH, (result) => this.#states(result, (state) => state.waiting ?? 0, most, sum));
    gauge(names.IN_FLIGHT, (result) => this.#states(result, (state) => state.in_flight ?? 0, sum, sum));
    gauge(names.BUDGET_SPENT, (result) => this.#budgets(result, "spent"));
    gauge(names.BUDGET_LIMIT, (result) => this.#budgets(result, "limit"));
    gauge(names.CANARY_ROLLED_BACK, (result) => this.#canaries(result));
    counter(names.MIRROR_CALLS, (result) => this.#mirrors(result));
    counter(names.RECORDS_DROPPED, (result) => this.#drops(result));
    every.add(new WeakRef(this));
  }

  /** Its engine's state is read when metrics are collected, for as long as it lives. */
  watch(observer: Observer): void {
    this.#watched = this.#watched.filter((other) => other.deref() !== undefined);
    if (!this.#watches(observer)) this.#watched.push(new WeakRef(observer));
  }

  /** It is about to be closed: what it has counted is read for the last time. */
  leave(observer: Observer): void {
    if (!this.#watches(observer)) return;
    this.#dropped.add(observer);
    this.#copies.add(observer);
  }

  #watches(observer: Observer): boolean {
    return this.#watched.some((other) => other.deref() === observer);
  }

  #observers(): Observer[] {
    return this.#watched.map((observer) => observer.deref()).filter((observer) => observer !== undefined);
  }

  /** A number of each deployment: `within` a client, of several models or keys of it, and `between` clients. */
  #states(result: ObservableResult, read: (state: State) => number, within: Fold, between: Fold): void {
    const found = new Map<string, number[]>();
    for (const observer of this.#observers()) {
      const own = new Map<string, number[]>();
      for (const state of (observer.engine.present("state") ?? []) as readonly State[]) {
        own.set(state.deployment, [...(own.get(state.deployment) ?? []), read(state)]);
      }
      for (const [deployment, values] of own) {
        const name = this.#deployments.label(deployment);
        found.set(name, [...(found.get(name) ?? []), within(values)]);
      }
    }
    for (const [name, values] of found) result.observe(between(values), { [names.DEPLOYMENT]: name });
  }

  async #budgets(result: ObservableResult, field: "spent" | "limit"): Promise<void> {
    // Of callers' budgets there may be any number; of those without a name of their own, and of the same budget in
    // several clients, the one that is used up furthest is shown.
    const fullest = new Map<string, { readonly spent: number; readonly limit: number }>();
    for (const observer of this.#observers()) {
      // Closed, or the budgets' file cannot be read: then there is nothing to tell.
      const spend = await observer.engine.spend<Spend>(SPEND).catch(() => undefined);
      for (const budget of spend?.budgets ?? []) {
        const name = this.#budgetNames.label(`${budget.scope}/${budget.per}`);
        const [spent, limit] = [Number(budget.spent), Number(budget.limit)];
        const known = fullest.get(name);
        if (known === undefined || spent * known.limit > known.spent * limit) fullest.set(name, { spent, limit });
      }
    }
    for (const [name, budget] of fullest) result.observe(budget[field], { [names.BUDGET]: name });
  }

  #canaries(result: ObservableResult): void {
    // Of several clients' canaries of one name it is enough that one was rolled back.
    const found = new Map<string, boolean>();
    for (const observer of this.#observers()) {
      const tried = observer.engine.present("canary") as Tried | null | undefined;
      if (!tried) continue;
      const name = this.#deployments.label(tried.deployment);
      found.set(name, (found.get(name) ?? false) || tried.state === "rolled_back");
    }
    for (const [name, rolledBack] of found) result.observe(Number(rolledBack), { [names.DEPLOYMENT]: name });
  }

  #copied(report: Copied | null | undefined): Counts {
    if (!report) return [];
    const { sent, errors, dropped, in_flight: inFlight } = report;
    const name = this.#deployments.label(report.to);
    const outcomes = [
      ["answered", Math.max(0, sent - errors - inFlight)],
      ["failed", errors],
      ["dropped", dropped],
    ] as const;
    return outcomes.map(([outcome, count]) => [JSON.stringify([name, outcome]), count]);
  }

  #mirrors(result: ObservableResult): void {
    for (const observer of this.#observers()) this.#copies.add(observer);
    for (const [labels, count] of this.#copies.all) {
      const [deployment, outcome] = JSON.parse(labels) as [string, string];
      result.observe(count, { [names.DEPLOYMENT]: deployment, [names.OUTCOME]: outcome });
    }
  }

  #drops(result: ObservableResult): void {
    for (const observer of this.#observers()) this.#dropped.add(observer);
    for (const count of this.#dropped.all.values()) result.observe(count);
  }
}
