// The SQL as one would write it for these tables, what its rows are read into, and the replies.
package main

import "github.com/jackc/pgtype"

const (
	userSQL = `
u.id, u.email, u."emailVerified", u.name, u.image,
coalesce(u."isAnonymous", false), coalesce(nullif(u.role, ''), 'user'),
coalesce(u.banned, false), u."banReason", u."banExpires",
m."organizationId", m.role, m."managerId", m."departmentId"`

	withMembershipSQL = `
select ` + userSQL + ` from users u
left join lateral (
  select * from members m where m."userId" = u.id order by m."createdAt", m.id limit 1
) m on true`

	getSQL     = withMembershipSQL + ` where u.id = $1`
	byEmailSQL = withMembershipSQL + `
where u.email = lower($1) order by u."createdAt", u.id limit 1`
	getManySQL = withMembershipSQL + ` where u.id = any($1::text[])`

	// One more than the page, to know whether there is another.
	orgListSQL = `
select ` + userSQL + `, m.id, m."createdAt"::text
from (
  select * from members where "organizationId" = $1 order by "createdAt", id limit $2::int + 1
) m
join users u on u.id = m."userId"
order by m."createdAt", m.id`

	// One row without an organization, of a user without memberships; none where there is no user.
	membershipsSQL = `
select m."organizationId", o.name, o.slug, m.role, m."managerId", m."departmentId",
  m."createdAt", m.id
from users u
left join lateral (
  select * from members where "userId" = u.id order by "createdAt", id limit $2::int + 1
) m on true
left join organizations o on o.id = m."organizationId"
where u.id = $1
order by m."createdAt", m.id`
)

type user struct {
	ID             string  `json:"id"`
	Email          *string `json:"email"`
	EmailVerified  bool    `json:"emailVerified"`
	Name           *string `json:"name"`
	Image          *string `json:"image"`
	IsAnonymous    bool    `json:"isAnonymous"`
	Role           string  `json:"role"`
	Banned         bool    `json:"banned"`
	BanReason      *string `json:"banReason"`
	BanExpires     instant `json:"banExpires"`
	OrganizationID *string `json:"organizationId"`
	OrgRole        *string `json:"orgRole"`
	ManagerID      *string `json:"managerId"`
	DepartmentID   *string `json:"departmentId"`
}

func (u *user) columns() []any {
	return []any{
		&u.ID, &u.Email, &u.EmailVerified, &u.Name, &u.Image, &u.IsAnonymous, &u.Role,
		&u.Banned, &u.BanReason, &u.BanExpires,
		&u.OrganizationID, &u.OrgRole, &u.ManagerID, &u.DepartmentID,
	}
}

type member struct {
	user
	memberID, since string
}

func (m *member) columns() []any { return append(m.user.columns(), &m.memberID, &m.since) }

type membership struct {
	OrganizationID   *string `json:"organizationId"`
	OrganizationName *string `json:"organizationName"`
	OrganizationSlug *string `json:"organizationSlug"`
	OrgRole          *string `json:"orgRole"`
	ManagerID        *string `json:"managerId"`
	DepartmentID     *string `json:"departmentId"`
	CreatedAt        instant `json:"createdAt"`
	memberID         *string
}

func (m *membership) columns() []any {
	return []any{
		&m.OrganizationID, &m.OrganizationName, &m.OrganizationSlug, &m.OrgRole, &m.ManagerID,
		&m.DepartmentID, &m.CreatedAt, &m.memberID,
	}
}

type batch struct {
	Users   []user   `json:"users"`
	Missing []string `json:"missing"`
}

type page struct {
	Users      []user  `json:"users"`
	NextCursor *string `json:"nextCursor"`
}

type membershipPage struct {
	Memberships []membership `json:"memberships"`
	NextCursor  *string      `json:"nextCursor"`
}

// A time as JavaScript writes it.
type instant struct{ pgtype.Timestamptz }

func (at instant) MarshalJSON() ([]byte, error) {
	if at.Status != pgtype.Present {
		return []byte("null"), nil
	}
	return at.Time.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}
