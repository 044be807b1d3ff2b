/** The little of Home Assistant's frontend that the cards use. */

/** https://developers.home-assistant.io/docs/frontend/data/ */
export interface Hass {
  readonly states: Readonly<Record<string, HassState | undefined>>;
  callService(domain: string, service: string, data: Record<string, unknown>): Promise<unknown>;
}

export interface HassState {
  readonly state: string;
  readonly attributes: Readonly<Record<string, unknown>>;
}

/** An entry of the card picker. */
export interface CustomCard {
  readonly type: string;
  readonly name: string;
  readonly description: string;
  readonly documentationURL?: string;
}

declare global {
  interface Window {
    customCards?: CustomCard[];
  }
}

/** The name that a person gave to an entity; else its id. */
export function nameOf(hass: Hass | null, entityId: string): string {
  const name = hass?.states[entityId]?.attributes["friendly_name"];
  return typeof name === "string" && name !== "" ? name : entityId;
}
