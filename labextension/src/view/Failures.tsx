/** Failures by cause, where they lie, and their rows on demand. */

import { useState } from 'preact/hooks';

import { integer } from './format';
import { useAnswer } from './hooks';
import { named, title } from './statuses';
import { Swatch } from './Swatch';
import type { Transport } from './transport';
import type { FailureRow, View } from './types';

const PAGE = 50;

interface Props {
  view: Pick<View, 'key' | 'causes' | 'regions' | 'counts'>;
  transport: Transport;
  open: string | null;
  onOpen(cause: string | null): void;
  onPoint(index: number): void;
}

export function Failures({ view, transport, open, onOpen, onPoint }: Props) {
  return (
    <ul class="mce-causes">
      {view.causes.map(({ cause, count }) => {
        const regions = view.regions.filter(region => region.cause === cause);
        return (
          <li key={cause}>
            <button
              type="button"
              class="mce-cause-button"
              aria-expanded={open === cause}
              onClick={() => onOpen(open === cause ? null : cause)}
            >
              <span class="mce-chevron" aria-hidden="true" />
              <span class="mce-cause-text">{cause}</span>
              <span class="mce-count">{integer(count)}</span>
            </button>
            {regions.map(({ rule, count: covered }) => (
              <p key={rule} class="mce-region">
                {integer(covered)} in: <span>{rule}</span>
              </p>
            ))}
            {open === cause && (
              <Rows
                view={view}
                cause={cause}
                count={count}
                transport={transport}
                onPoint={onPoint}
              />
            )}
          </li>
        );
      })}
    </ul>
  );
}

interface RowsProps extends Pick<Props, 'view' | 'transport' | 'onPoint'> {
  cause: string;
  count: number;
}

function Rows({ view, cause, count, transport, onPoint }: RowsProps) {
  const [limit, setLimit] = useState(PAGE);
  const path =
    `api/sweeps/${encodeURIComponent(view.key)}/failures` +
    `?cause=${encodeURIComponent(cause)}&offset=0&limit=${limit}`;
  // New failures of the same cause are new rows; hundreds of them need not be read again for each.
  const news = count <= limit ? count : limit;
  const { value, error, loading } = useAnswer(`${cause}\n${path}\n${news}`, () =>
    transport.get<{ total: number; rows: FailureRow[] }>(path)
  );
  const rows = value?.rows ?? [];
  return (
    <div class="mce-rows">
      {rows.map(row => {
        const status = named(row.status);
        return (
          <button type="button" key={row.index} class="mce-row" onClick={() => onPoint(row.index)}>
            {status && <Swatch status={status} />}
            <span>
              <span class="mce-labels">
                {Object.entries(row.labels).map(([name, label]) => (
                  <span key={name}>
                    <span class="mce-faint">{name}</span> {label}
                  </span>
                ))}
              </span>
              <span class="mce-hidden">{status && title(status.name)}</span>
              {row.message && <span class="mce-row-message">{row.message}</span>}
            </span>
          </button>
        );
      })}
      {error && (
        <p class="mce-error" role="alert">
          {error}
        </p>
      )}
      {loading && !value && <p class="mce-faint">Loading…</p>}
      {value && value.total > rows.length && rows.length > 0 && rows.length < 500 && (
        <button
          type="button"
          class="mce-link"
          onClick={() => setLimit(Math.min(limit + 4 * PAGE, 500))}
        >
          Show more of {integer(value.total)}
        </button>
      )}
    </div>
  );
}
