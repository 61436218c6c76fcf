<?php

// Where Clientexec's plug-ins look for their base class, below the folder in which Clientexec runs.

declare(strict_types=1);

abstract class ServerPlugin
{
    /** @var ?CE_User whoever is logged in */
    public $user;

    public function __construct()
    {
        $this->user = new CE_User();
    }

    /** @return array<string, array<string, mixed>> */
    abstract public function getVariables();

    /**
     * What Clientexec collects about a package for its plug-ins.
     *
     * @param array<mixed> $args
     * @return array<string, mixed>
     */
    public function buildParams(UserPackage $userPackage, array $args = [])
    {
        $package = UserPackage::$packages[$userPackage->getId()];
        return [
            'server' => ['variables' => ($package['server'] ?? []) + Server::$variables],
            'package' => [
                'id' => $userPackage->getId(),
                'domain_name' => $package['domain'],
                'username' => '',
                'password' => $package['password'],
                'variables' => $package['variables'],
                'ServerAcctProperties' => $userPackage->getCustomField('Server Acct Properties'),
            ],
            'customer' => ['email' => $package['email']],
            'changes' => $args['changes'] ?? [],
        ];
    }
}
