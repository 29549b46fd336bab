/** The dialog that shows what a cell becomes, line by line, before anything is changed. */

import type { VNode } from 'preact';
import { useMemo } from 'preact/hooks';

import { diff, folded, type Row } from './diff';
import { PreactWidget } from './preactWidget';
import { LOAD, verdict, ways, type Rewrite } from './rewriting';
import { told } from './view/transport';

const SIGN = { same: ' ', added: '+', removed: '−' };
const WORD = { same: '', added: 'added: ', removed: 'removed: ' };

function Line({ row }: { row: Row | null }): VNode {
  if (!row) {
    return (
      <tr class="mce-diff-gap">
        <td colSpan={4}>⋯</td>
      </tr>
    );
  }
  return (
    <tr class={`mce-diff-row mce-mod-${row.kind}`}>
      <td class="mce-diff-number">{row.before ?? ''}</td>
      <td class="mce-diff-number">{row.after ?? ''}</td>
      <td class="mce-diff-sign">
        <span aria-hidden="true">{SIGN[row.kind]}</span>
        <span class="mce-hidden">{WORD[row.kind]}</span>
      </td>
      <td class="mce-diff-text">{row.text || ' '}</td>
    </tr>
  );
}

export function Diff({ before, after }: { before: string; after: string }): VNode {
  const rows = useMemo(() => folded(diff(before, after)), [before, after]);
  return (
    <div class="mce-diff" role="region" aria-label="What changes in the cell" tabIndex={0}>
      <table>
        <tbody>
          {rows.map((row, at) => (
            <Line key={at} row={row} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Understood({ rewrite }: { rewrite: Rewrite }): VNode {
  const rows: [string, VNode[] | string][] = [
    [
      rewrite.axes.length === 1 ? 'Axis' : 'Axes',
      rewrite.axes.map(axis => (
        <div key={axis.name} class="mce-axis">
          <code class="mce-mod-name">{axis.name}</code> <code>{axis.source}</code>
        </div>
      ))
    ],
    ['Outputs', rewrite.outputs.map(one => <code key={one}>{one} </code>)],
    ['Setup', rewrite.setup.map(one => <div key={one}>{one}</div>)],
    ['Notes', rewrite.notes.map(one => <div key={one}>{one}</div>)]
  ];
  return (
    <dl class="mce-understood">
      {rows
        .filter(([, values]) => values.length > 0)
        .map(([label, values]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{values}</dd>
          </div>
        ))}
    </dl>
  );
}

const HEADS = {
  good: 'The loops of this cell run in parallel, and every result is kept.',
  same: 'This cell is a sweep already. This is how it is read:',
  mendable: 'These loops can be a sweep after one change.',
  hopeless: 'These loops cannot be a sweep.'
};

interface Shown {
  source: string;
  rewrite: Rewrite;
  name: string;
  way: number;
  trouble: string;
  adds: boolean;
  rename(name: string): void;
  choose(way: number): void;
}

export function SweepBody(props: Shown): VNode {
  const { source, rewrite, way } = props;
  const found = ways(rewrite);
  const result = verdict(rewrite, source);
  const { error } = rewrite;
  return (
    <div class="mce-sweep-body">
      <p class={`mce-verdict mce-mod-${result}`}>{HEADS[result]}</p>
      {error ? (
        <div class="mce-reason">
          {error.cause ? (
            <p>
              {error.line === null ? null : <strong>Line {error.line}: </strong>}
              {error.cause}
            </p>
          ) : (
            <p>{error.message}</p>
          )}
          {error.fix ? <p>{error.fix}</p> : null}
        </div>
      ) : null}
      {found.length > 0 && result !== 'same' ? (
        <label class="mce-name">
          Name of the sweep
          <input
            type="text"
            value={props.name}
            spellcheck={false}
            aria-describedby="mce-name-help"
            onInput={event => props.rename(event.currentTarget.value)}
          />
          <span id="mce-name-help">a variable of that name will hold it</span>
        </label>
      ) : null}
      {props.trouble ? (
        <p class="mce-trouble" role="alert">
          {props.trouble}
        </p>
      ) : null}
      {rewrite.axes.length > 0 ? <Understood rewrite={rewrite} /> : null}
      {found.length > 1 ? (
        <fieldset class="mce-ways">
          <legend>What to put in place</legend>
          {found.map((one, at) => (
            <label key={at}>
              <input
                type="radio"
                name="mce-way"
                checked={at === way}
                onChange={() => props.choose(at)}
              />
              {one.title}
            </label>
          ))}
        </fieldset>
      ) : null}
      {found.length > 0 && result !== 'same' ? (
        <Diff before={source} after={found[Math.min(way, found.length - 1)].cell} />
      ) : null}
      {result === 'hopeless' ? (
        <div class="mce-diff" role="region" aria-label="The cell" tabIndex={0}>
          <table>
            <tbody>
              {source.split('\n').map((text, at) => (
                <tr
                  key={at}
                  class={`mce-diff-row ${at + 1 === error?.line ? 'mce-mod-removed' : ''}`}
                >
                  <td class="mce-diff-number">{at + 1}</td>
                  <td class="mce-diff-text">{text || ' '}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {rewrite.tail && found.length > 0 && result !== 'same' ? (
        <>
          <p>
            What follows the loops goes into a cell of its own below, for when the sweep is done:
          </p>
          <pre class="mce-tail">{rewrite.tail}</pre>
        </>
      ) : null}
      {props.adds && found.length > 0 && result !== 'same' ? (
        <p>
          A cell <code>{LOAD}</code> is added above, because this notebook has none; run it once.
        </p>
      ) : null}
    </div>
  );
}

export interface Decision {
  cell: string;
  tail: string | null;
}

/** The body of the dialog; asks again when the name changes. */
export class SweepDialogBody extends PreactWidget {
  private way = 0;
  private name: string;
  private trouble = '';
  private asked = 0;

  constructor(
    private readonly source: string,
    private rewrite: Rewrite,
    private readonly adds: boolean,
    private readonly ask: (name: string) => Promise<Rewrite>,
    private readonly ready: (applicable: boolean) => void
  ) {
    super();
    this.addClass('mce-SweepDialog');
    this.name = rewrite.name;
  }

  getValue(): Decision | null {
    const found = ways(this.rewrite);
    const way = found[Math.min(this.way, found.length - 1)];
    return way && !this.trouble ? { cell: way.cell, tail: this.rewrite.tail } : null;
  }

  protected content(): VNode {
    return (
      <SweepBody
        source={this.source}
        rewrite={this.rewrite}
        name={this.name}
        way={this.way}
        trouble={this.trouble}
        adds={this.adds}
        rename={name => void this.rename(name)}
        choose={way => {
          this.way = way;
          this.refresh();
        }}
      />
    );
  }

  private async rename(name: string): Promise<void> {
    this.name = name;
    const number = ++this.asked;
    this.ready(false);
    let trouble = '';
    try {
      const rewrite = await this.ask(name);
      if (number !== this.asked) {
        return;
      }
      if (ways(rewrite).length === 0 && ways(this.rewrite).length > 0) {
        trouble = rewrite.error?.message ?? 'That name cannot be used.';
      } else {
        this.rewrite = rewrite;
      }
    } catch (error) {
      trouble = told(error);
    }
    if (number === this.asked) {
      this.trouble = trouble;
      this.ready(!trouble);
      this.refresh();
    }
  }
}
