/** The points that one cell of the heatmap stands for. */

import { useEffect } from 'preact/hooks';

import { Detail } from './Detail';
import { integer } from './format';
import { useAnswer } from './hooks';
import { named, title } from './statuses';
import { Swatch } from './Swatch';
import type { Choice, Transport } from './transport';
import type { FailureRow } from './types';

export interface Picked {
  column: number;
  row: number;
  choice: Choice;
}

type Row = Pick<FailureRow, 'index' | 'labels' | 'status'>;

interface Props {
  sweep: string;
  picked: Picked;
  transport: Transport;
  /** @param only Whether it is the only point of the cell. */
  onPoint(index: number, only: boolean): void;
  onBack(): void;
}

export function CellPoints({ sweep, picked, transport, onPoint, onBack }: Props) {
  const { column, row, choice } = picked;
  const query = new URLSearchParams({
    column: String(column),
    row: String(row),
    at: JSON.stringify(choice.at)
  });
  if (choice.x !== null) {
    query.set('x', choice.x);
  }
  if (choice.y !== null) {
    query.set('y', choice.y);
  }
  const path = `api/sweeps/${encodeURIComponent(sweep)}/cell?${query}`;
  const answer = useAnswer(path, () => transport.get<{ total: number; rows: Row[] }>(path));
  const { value } = answer;
  // A list of one is the point itself.
  useEffect(() => {
    if (value?.total === 1) {
      onPoint(value.rows[0].index, true);
    }
  }, [value]);
  return (
    <Detail
      answer={answer}
      onBack={onBack}
      aside={value && <span class="mce-faint">{integer(value.total)} points here</span>}
    >
      {value?.total === 0 && <p class="mce-faint">No point of the grid is here.</p>}
      <div class="mce-rows">
        {value?.rows.map(each => {
          const status = named(each.status);
          return (
            <button
              type="button"
              key={each.index}
              class="mce-row"
              onClick={() => onPoint(each.index, false)}
            >
              {status && <Swatch status={status} />}
              <span class="mce-labels">
                {Object.entries(each.labels).map(([name, label]) => (
                  <span key={name}>
                    <span class="mce-faint">{name}</span> {label}
                  </span>
                ))}
                <span class="mce-faint">{status && title(status.name)}</span>
              </span>
            </button>
          );
        })}
        {value && value.total > value.rows.length && (
          <p class="mce-faint">and {integer(value.total - value.rows.length)} more</p>
        )}
      </div>
    </Detail>
  );
}
