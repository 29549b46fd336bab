/** Which axes the map shows, and what it does with the others. */

import { clip } from './format';
import type { Choice } from './transport';
import type { Axis, Heatmap } from './types';

interface Props {
  axes: Axis[];
  heatmap: Heatmap;
  onChoose(choice: Choice): void;
}

export function Selectors({ axes, heatmap, onChoose }: Props) {
  const { x, y, at } = heatmap;
  const others = axes.filter(axis => axis.name !== x && axis.name !== y);
  const choose = (part: Partial<Choice>) => {
    const next: Choice = { x, y, at, ...part };
    // The same axis twice is no map: the other one moves out of the way.
    if (next.x === next.y) {
      if (part.x === undefined) {
        next.x = y;
      } else {
        next.y = x;
      }
    }
    const kept = axes.filter(
      axis => axis.name !== next.x && axis.name !== next.y && axis.name in next.at
    );
    onChoose({
      ...next,
      at: Object.fromEntries(kept.map(axis => [axis.name, next.at[axis.name]]))
    });
  };
  return (
    <div class="mce-selectors" role="group" aria-label="Axes of the map">
      {axes.length > 1 && (
        <>
          <AxisSelect label="x" axes={axes} value={x} onChange={name => choose({ x: name })} />
          <AxisSelect
            label="y"
            axes={axes}
            value={y}
            none="none"
            onChange={name => choose({ y: name })}
          />
        </>
      )}
      {others.map(axis => (
        <label key={axis.name}>
          <span>{clip(axis.name, 24)}</span>
          <select
            value={
              at[axis.name] === null || at[axis.name] === undefined ? '' : String(at[axis.name])
            }
            onChange={event => {
              const chosen = event.currentTarget.value;
              choose({ at: { ...at, [axis.name]: chosen === '' ? null : Number(chosen) } });
            }}
          >
            <option value="">all</option>
            {axis.labels.map((text, i) => (
              <option key={axis.positions[i]} value={String(axis.positions[i])}>
                {clip(text, 40)}
              </option>
            ))}
          </select>
        </label>
      ))}
    </div>
  );
}

interface AxisSelectProps {
  label: string;
  axes: Axis[];
  value: string | null;
  none?: string;
  onChange(name: string | null): void;
}

function AxisSelect({ label, axes, value, none, onChange }: AxisSelectProps) {
  // Places rather than names, because a name may be any text.
  const place = axes.findIndex(axis => axis.name === value);
  return (
    <label>
      <span>{label}</span>
      <select
        value={String(place)}
        aria-label={`${label} axis`}
        onChange={event => onChange(axes[Number(event.currentTarget.value)]?.name ?? null)}
      >
        {axes.map((axis, i) => (
          <option key={axis.name} value={String(i)}>
            {clip(axis.name, 40)}
          </option>
        ))}
        {none && <option value="-1">{none}</option>}
      </select>
    </label>
  );
}
